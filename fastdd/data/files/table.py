"""Tables of what images are (CSV, TSV, what spreadsheets write), and the images that their rows name."""

import csv
import io
import ntpath
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastdd.core.text import did_you_mean, listed
from fastdd.data.files.tree import Tree, is_image

# In the order in which they are tried where several would do.
_DELIMITERS = ",;\t|"
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
# Excel's first line where the delimiter is not the country's.
_SEPARATOR = re.compile(r"sep=(.)\r?\n")


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes:
        path: of the file, for messages.
        columns: all that its first line names.
        rows: (line, value of every wanted column that there is), without blanks around.
        remarks: how it was read, where that is not as UTF-8.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]
    remarks: tuple[str, ...] = ()


def read_table(
    content: bytes, path: Path, wanted: Sequence[str], optional: Sequence[str] = (), cure: str = ""
) -> Table:
    """A table whose first line names its columns, with any delimiter, in UTF-8, UTF-16, or a Western encoding.

    The delimiter is the one by which the first line has the wanted columns; case and blanks around names do not count.

    Args:
        content: of the file.
        path: of the file, for messages.
        wanted: columns.
        optional: columns that are read where they are.
        cure: what the message that a column is missing ends with.

    Raises:
        ValueError: in one line that names the file: a column that is missing or there twice, a row that is none.
    """
    text, remarks = _text(content, path)
    if separator := _SEPARATOR.match(text):
        text = text[separator.end() :]
    delimiter, names = _header(text, [*wanted, *optional])
    places = {name: _places(name, names) for name in (*wanted, *optional)}
    if not all(places[name] for name in wanted):
        missing = next(name for name in wanted if not places[name])
        hint = did_you_mean(missing, names) if len(names) > 1 else ""
        there = f"not {names}" if any(names) else "and is empty"
        what = "columns" if len(wanted) > 1 else "column"
        raise ValueError(f"{path} needs the {what} {listed(wanted)}, {there}{hint}{cure}")
    for name, found in places.items():
        if len(found) > 1:
            raise ValueError(f"{path} has the column {name} {len(found)} times: rename the others")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows, skipped = [], 1 if separator else 0
    try:
        next(reader, None)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            value = {name: cells[at[0]].strip() if at[0] < len(cells) else "" for name, at in places.items() if at}
            rows.append((reader.line_num + skipped, value))
    except csv.Error as error:
        line = reader.line_num + skipped
        raise ValueError(f"{path}, line {line}: no row of {' and '.join(wanted)} ({error})") from None
    return Table(path, tuple(names), rows, remarks)


def _text(content: bytes, path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and a remark where its encoding had to be guessed."""
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:2]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content.decode(encoding or "utf-8"), ()
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise ValueError(f"{path} is not {encoding} text ({error.reason} at byte {error.start})") from None
    try:
        text, encoding = content.decode("cp1252"), "Windows-1252"
    except UnicodeDecodeError:  # five bytes that it does not have
        text, encoding = content.decode("latin-1"), "Latin-1"
    remark = (
        f"{path.name} is not UTF-8 and was read as {encoding} (Western European); if names look wrong, save it as UTF-8"
    )
    return text, (remark,)


def _header(text: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """The delimiter, and the names in the first line."""
    first = text.partition("\n")[0].rstrip("\r")
    others = dict.fromkeys(re.findall(r"[^\w\s\"'./+()-]", first))
    split = {
        delimiter: [name.strip().lstrip("\ufeff") for name in next(csv.reader([first], delimiter=delimiter), [])]
        for delimiter in dict.fromkeys((*_DELIMITERS, *others))
    }
    # max takes the first of equals.
    return max(split.items(), key=lambda one: (sum(bool(_places(name, one[1])) for name in columns), len(one[1])))


def _places(column: str, names: Sequence[str]) -> list[int]:
    """Where a column is: by its name, else by its name in any case."""
    exact = [place for place, name in enumerate(names) if name == column]
    return exact or [place for place, name in enumerate(names) if name.casefold() == column.casefold()]


class Images:
    """The images below a root, to be found by what tables call them.

    Args:
        tree: where they are.
        names: theirs, below the top of the tree.
    """

    def __init__(self, tree: Tree, names: Iterable[str]):
        self._tree = tree
        self._names = {_plain(name): name for name in names}
        self._ends: dict[str, list[str]] = {}
        for plain, name in self._names.items():
            for end in _ends(plain):
                self._ends.setdefault(end, []).append(name)
            self._ends.setdefault(_stem(plain), []).append(name)

    def find(self, called: str) -> str | None:
        """The name of the image that a table means.

        That is its path below the root; an absolute path, which may lie elsewhere, or be another machine's of the same
        folder; or the last parts of a path, such as the bare name of the file, with or without its suffix.

        Raises:
            ValueError: several images have this name.
        """
        plain = _plain(called)
        if plain in self._names:
            return self._names[plain]
        if plain.startswith("/"):
            path = Path(called)
            if path.is_file() and is_image(path.name) and self._tree.path.is_dir():
                below = os.path.relpath(os.path.realpath(path), os.path.realpath(self._tree.path))
                return self._names.get(_plain(below), os.path.abspath(path))
            # An image whose folders are others is another one of the same name.
            return next((self._names[end] for end in _ends(plain) if end in self._names), None)
        found = self._ends.get(plain, [])
        if len(found) > 1:
            raise ValueError(f"{called} can be {found[0]} or {found[1]}: give more of the path")
        return found[0] if found else None


def _ends(plain: str) -> Iterator[str]:
    """a/b/c.jpg, b/c.jpg, c.jpg."""
    parts = plain.split("/")
    for first in range(len(parts)):
        yield "/".join(parts[first:])


def _stem(plain: str) -> str:
    """The bare name without its suffix."""
    name = PurePosixPath(plain).name
    return name[: name.rindex(".")] if is_image(name) else name


def _plain(name: str) -> str:
    """Forward slashes, composed accents, no drive and no leading ``./``."""
    name = unicodedata.normalize("NFC", name.strip())
    drive, rest = ntpath.splitdrive(name)
    name = (rest if len(drive) == 2 else name).replace("\\", "/")
    return name.removeprefix("./")
