"""Where a data set's image files are: a folder or an archive, and the search for it below a root."""

import os
import tarfile
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from fastdd.data.files.decode import read_item
from fastdd.data.files.readers import no_root

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Tree:
    """A folder, a zip archive or an uncompressed tar archive, as names with forward slashes below its top.

    Raises:
        FileNotFoundError: there is none.
        RuntimeError: an archive that is damaged, or compressed as a whole, so that nothing in it can be picked out.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._entries: dict[str, tuple[str, str | None, int, int]] | None = None
        if self.path.is_dir():
            return
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no {self.path}")
        try:
            if zipfile.is_zipfile(self.path):
                with zipfile.ZipFile(self.path) as archive:
                    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
                self._entries = {name: (str(self.path), name, 0, -1) for name in names}
            else:
                with tarfile.open(self.path, "r:") as archive:
                    self._entries = {
                        member.name.removeprefix("./"): (str(self.path), None, member.offset_data, member.size)
                        for member in archive
                        if member.isfile()
                    }
        except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise RuntimeError(
                f"{self.path} is no zip and no uncompressed tar archive ({error}); unpack it and give the folder"
            ) from None

    @cached_property
    def _folders(self) -> dict[str, tuple[set[str], list[str]]]:
        folders: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}
        for name in self._entries:
            parts = name.split("/")
            for depth in range(len(parts) - 1):
                above = "/".join(parts[:depth])
                folders.setdefault(above, (set(), []))[0].add(parts[depth])
            folders.setdefault("/".join(parts[:-1]), (set(), []))[1].append(parts[-1])
        return folders

    def folders(self, below: str = "") -> list[str]:
        """Names of the folders in a folder, sorted; none if it is not there."""
        if self._entries is None:
            try:
                with os.scandir(self.path / below) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(self._folders.get(below, (set(), []))[0])

    def files(self, below: str = "") -> list[str]:
        """Names of the files in a folder, sorted; none if it is not there."""
        if self._entries is None:
            try:
                with os.scandir(self.path / below) as entries:
                    return sorted(entry.name for entry in entries if not entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(self._folders.get(below, (set(), []))[1])

    def images(self, below: str) -> list[str]:
        """Names (below the top) of the images in a folder, sorted; not those that start with a dot."""
        return [
            f"{below}/{name}" if below else name
            for name in self.files(below)
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]

    def has(self, name: str) -> bool:
        return (self.path / name).is_file() if self._entries is None else name in self._entries

    def item(self, name: str) -> tuple[str, str | None, int, int]:
        """Where a file's bytes are, as :class:`fastdd.data.files.decode.Batch` takes it."""
        return (str(self.path / name), None, 0, -1) if self._entries is None else self._entries[name]

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is no such file.
            RuntimeError: it can't be read.
        """
        if not self.has(name):
            raise FileNotFoundError(f"{self.shown(name)} is missing")
        try:
            return read_item(*self.item(name))
        except OSError as error:
            raise RuntimeError(f"cannot read {self.shown(name)}: {error.strerror}") from None
        except ValueError as error:
            raise RuntimeError(f"cannot read {self.shown(name)}: {error}") from None

    def shown(self, name: str) -> str:
        """How a message names a file."""
        return str(self.path / name)


def find(root: str | os.PathLike | None, title: str, wanted: str, page: str, places: Sequence[str], test) -> Tree:
    """The first of the usual places below a root that holds a data set.

    Args:
        root: the root; may be None.
        title, wanted, page: of the data set: its name, what is looked for, where it is offered; for messages.
        places: folders or archives below the root, ``.`` for itself; also looked for in each folder of the root.
        test: ``test(tree)``: whether the data set is there.

    Raises:
        FileNotFoundError: no root, or the data set is in none of them.
    """
    if root is None:
        raise no_root(title, wanted, page)
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"the data root {root} does not exist")
    tried = []
    if root.is_file():
        tried.append(root)
    else:
        deeper = sorted(path for path in root.iterdir() if path.is_dir())
        tried += [base / place for base in (root, *deeper) for place in places]
    for path in tried:
        if path.exists():
            tree = Tree(path)
            if test(tree):
                return tree
    looked = ", ".join(str(root / place) for place in places)
    raise FileNotFoundError(f"{title}: {wanted} not found in {looked}; offered at {page}")
