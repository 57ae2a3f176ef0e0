"""Tables that fit their terminal: no figure is cut, and no column goes blank.

A table that is too wide loses its frame first. Then, where it is of figures, its columns go below each other in as many
tables as it takes, each with the names of the rows; where it is of words, every row's words go below each other.
"""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

# Of a column of words what is still pleasant to read, and of a name before it is folded.
_WORDS, _NAME = 22, 12
# Between the columns of a table without a frame.
_GAP = 2


class Fitted:
    """A table as it fits the width that it is given."""

    def __init__(self, table: Table):
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._table.title:
            yield Text(str(self._table.title), style="table.title", overflow="fold", no_wrap=False)
        for number, part in enumerate(fitted(self._table, options.max_width)):
            if number:
                yield Text("")
            yield part


def fitted(table: Table, width: int) -> Iterator[Table]:
    """The tables, one below the other, that show all cells of ``table`` in ``width`` columns; without its title."""
    sizes = [_sizes(column) for column in table.columns]
    if sizes[0][1] <= 2 * _WORDS:  # names are folded last
        sizes[0] = (sizes[0][1], sizes[0][1])
    for framed in (True, False) if table.box is not None else (False,):
        space = width - _rim(table, framed, len(sizes))
        if sum(least for least, _ in sizes) <= space:
            yield _part(table, range(len(sizes)), _spread(sizes, space), framed)
            return
    if _is_words(table):
        yield _stacked(table, width)
        return
    names = _names(table, sizes, width)
    others = [least for least, _ in sizes[len(names) :]]
    for numbers in _chunks(others, width - sum(names), len(names)):
        chosen = [*range(len(names)), *(len(names) + number for number in numbers)]
        space = width - _rim(table, False, len(chosen)) - sum(names)
        widths = [*names, *_spread([sizes[number] for number in chosen[len(names) :]], space)]
        yield _part(table, chosen, widths, False)


def _names(table: Table, sizes: Sequence[tuple[int, int]], width: int) -> list[int]:
    """Widths of the columns that name a row in every part: half of the space at most, and folded as figures need it."""
    names = [size for _, size in sizes[: _keys(table)]]
    while len(names) > 1 and sum(names) > width // 2:
        names.pop()
    widest = max((least for least, _ in sizes[len(names) :]), default=0)
    room = min(width // 2, width - widest - _rim(table, False, len(names) + 1))
    names[0] -= max(0, min(sum(names) - room, names[0] - _NAME))
    return names


def _spread(sizes: Sequence[tuple[int, int]], space: int) -> list[int]:
    """Widths between the least and that of the longest line; who misses most gets most of ``space``."""
    widths = [least for least, _ in sizes]
    while sum(widths) < space:
        missing = [most - width for width, (_, most) in zip(widths, sizes, strict=True)]
        if max(missing, default=0) <= 0:
            break
        widths[missing.index(max(missing))] += 1
    return widths


def _chunks(sizes: Sequence[int], space: int, keys: int) -> Iterator[list[int]]:
    """Which columns go together: as many as fit, at least one."""
    chosen: list[int] = []
    used = _GAP * (keys - 1)
    for number, size in enumerate(sizes):
        if chosen and used + _GAP + size > space:
            yield chosen
            chosen, used = [], _GAP * (keys - 1)
        chosen.append(number)
        used += _GAP + size
    if chosen or not sizes:
        yield chosen


def _keys(table: Table) -> int:
    """How many columns name a row: those on the left, before the first of figures."""
    right = [number for number, column in enumerate(table.columns) if column.justify == "right"]
    return max(1, min(right, default=1))


def _is_words(table: Table) -> bool:
    """Whether there is more to read in a table than to compare."""
    words = sum(map(_wraps, table.columns[1:]))
    return len(table.columns) > 2 and words > sum(column.justify == "right" for column in table.columns)


def _wraps(column: Column) -> bool:
    return not column.no_wrap and column.justify != "right"


def _texts(column: Column) -> list[str]:
    return [_plain(cell) for cell in (column.header, *column.cells)]


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _sizes(column: Column) -> tuple[int, int]:
    """The least width of a column that can be read, and that of its longest line."""
    lines = [line for text in _texts(column) for line in text.split("\n")]
    longest = max(map(cell_len, lines), default=0)
    if not _wraps(column):
        # Titles of figures are folded, figures are not.
        title = [min(cell_len(word), _WORDS) for word in _plain(column.header).split()]
        cells = [cell_len(line) for text in _texts(column)[1:] for line in text.split("\n")]
        return max([*cells, *title], default=0), longest
    words = max((cell_len(word) for line in lines for word in line.split()), default=0)
    return min(longest, max(min(words, 2 * _WORDS), _WORDS)), longest


def _rim(table: Table, framed: bool, columns: int) -> int:
    """What a table takes beside its cells."""
    if framed:
        return columns * (table.padding[1] + table.padding[3]) + columns + 1
    return _GAP * (columns - 1)


def _part(table: Table, numbers: Sequence[int], widths: Sequence[int], framed: bool) -> Table:
    """A table of some of the columns, of these widths: rich by itself takes from columns what their figures need."""
    plain = {} if framed else {"box": None, "padding": (0, _GAP, 0, 0), "pad_edge": False}
    looks = {"box": table.box, "padding": table.padding, "pad_edge": table.pad_edge, **plain}
    result = Table(show_header=table.show_header, header_style=table.header_style, **looks)
    for number, width in zip(numbers, widths, strict=True):
        column = table.columns[number]
        result.add_column(
            column.header, justify=column.justify, style=column.style, overflow="fold", width=max(1, width)
        )
    cells = [list(column.cells) for column in table.columns]
    for row, about in enumerate(table.rows):
        result.add_row(*(cells[number][row] for number in numbers), end_section=about.end_section)
    return result


def _stacked(table: Table, width: int) -> Table:
    """Every row's words below each other, beside its name."""
    result = Table(box=None, show_header=False, padding=(0, _GAP, 0, 0), pad_edge=False)
    _, longest = _sizes(table.columns[0])
    result.add_column(style="bold", overflow="fold", max_width=max(_NAME, min(longest, width // 3)))
    result.add_column(overflow="fold")
    for name, first, *others in zip(*(column.cells for column in table.columns), strict=True):
        lines = [_plain(first)]
        for column, cell in zip(table.columns[2:], others, strict=True):
            text = _plain(cell)
            if text:
                title = _plain(column.header)
                lines.append(f"{title}: {text}" if title and table.show_header else text)
        result.add_row(_plain(name), "\n".join(lines))
    return result
