"""Tables that fit their terminal: no figure is cut, and no column goes blank.

A table that is too wide loses its frame first. Then, where it is of figures, its columns go below each other in as many
tables as it takes, each with the names of the rows; where it is of words, every row's words go below each other.
"""

from collections.abc import Iterator, Sequence
from copy import copy

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
        yield from fitted(self._table, options.max_width)


def fitted(table: Table, width: int) -> Iterator[Table]:
    """The tables, one below the other, that show all cells of ``table`` in ``width`` columns; without its title."""
    sizes = [_sizes(column) for column in table.columns]
    keys = _keys(table)
    for framed in (True, False) if table.box is not None else (False,):
        space = width - _rim(table, framed, len(sizes))
        if sum(least for least, _ in sizes) <= space:
            yield _part(table, range(len(sizes)), [least for least, _ in sizes], framed)
            return
    if _is_words(table) and len(sizes) > 2:
        yield _stacked(table, width)
        return
    # Names are folded as far as the widest figure needs it.
    names = [size for _, size in sizes[:keys]]
    others = [least for least, _ in sizes[keys:]]
    room = width - _rim(table, False, keys + 1) - max(others, default=0)
    longest = max(range(keys), key=names.__getitem__)
    names[longest] = max(min(names[longest], room - sum(names) + names[longest]), min(names[longest], _NAME))
    for numbers in _chunks(others, width - sum(names), keys):
        chosen = [*range(keys), *(keys + number for number in numbers)]
        yield _part(table, chosen, [*names, *(others[number] for number in numbers)], False, names)


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
    return any(_wraps(column) for column in table.columns[1:])


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
        return longest, longest
    words = max((cell_len(word) for line in lines for word in line.split()), default=0)
    return min(longest, max(min(words, _WORDS), _WORDS)), longest


def _rim(table: Table, framed: bool, columns: int) -> int:
    """What a table takes beside its cells."""
    if framed:
        return columns * (table.padding[1] + table.padding[3]) + columns + 1
    return _GAP * (columns - 1)


def _part(table: Table, numbers: Sequence[int], least: Sequence[int], framed: bool, most: Sequence[int] = ()) -> Table:
    """A table of some of the columns."""
    plain = {} if framed else {"box": None, "padding": (0, _GAP, 0, 0), "pad_edge": False}
    looks = {"box": table.box, "padding": table.padding, "pad_edge": table.pad_edge, **plain}
    result = Table(show_header=table.show_header, header_style=table.header_style, **looks)
    for place, number in enumerate(numbers):
        column = copy(table.columns[number])
        wraps = _wraps(column)
        result.add_column(
            column.header,
            justify=column.justify,
            style=column.style,
            no_wrap=not wraps and place >= len(most),
            overflow="fold",
            min_width=least[place],
            max_width=most[place] if place < len(most) else None,
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
