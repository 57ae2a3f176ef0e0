"""Where a data set's image files are: a folder or an archive, and the search for it below a root."""

import os
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from fastdd.core.files import DAMAGE, reason
from fastdd.core.text import printable
from fastdd.data.files.decode import read_item
from fastdd.data.files.readers import no_root

IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm"),
)


class Tree:
    """A folder, a zip archive or an uncompressed tar archive, as names with forward slashes below its top.

    Raises:
        FileNotFoundError: there is none.
        RuntimeError: an archive that is damaged, compressed as a whole, so that nothing in it can be picked out, or has
            sparse files.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._entries: dict[str, tuple[str, str | None, int, int]] | None = None
        self._links: list[str] = []
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
                    self._entries = self._of_tar(archive)
        except (tarfile.TarError, *DAMAGE) as error:
            why = reason(error)
            raise RuntimeError(
                f"{self.path} is no zip and no uncompressed tar archive ({why}); unpack it and give the folder"
            ) from None

    def _of_tar(self, archive: tarfile.TarFile) -> dict[str, tuple[str, str | None, int, int]]:
        entries = {}
        for member in archive:
            name = member.name.removeprefix("./")
            if member.issparse():
                # Its bytes lie in pieces: read as one, they would be other pixels.
                raise RuntimeError(f"{self.path} holds {name} as a sparse file: pack it without -S, or give the folder")
            if member.isfile():
                entries[name] = (str(self.path), None, member.offset_data, member.size)
            elif member.islnk() and (target := member.linkname.removeprefix("./")) in entries:
                entries[name] = entries[target]
            elif not member.isdir():
                self._links.append(name)
        return entries

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
        return [f"{below}/{name}" if below else name for name in self.files(below) if is_image(name)]

    def all_images(self) -> list[str]:
        """Names of all images, however deep, sorted; not what starts with a dot, or lies in a folder that does."""
        if self._entries is None:
            names = []
            for place, folders, found in os.walk(self.path):
                folders[:] = [name for name in folders if not name.startswith(".")]
                below = PurePosixPath(Path(place).relative_to(self.path).as_posix())
                names += [str(below / name) for name in found if is_image(name)]
            return sorted(names)
        return sorted(
            name
            for name in self._entries
            if is_image(PurePosixPath(name).name) and not any(part.startswith(".") for part in name.split("/"))
        )

    def left_out(self, class_folders: Iterable[str]) -> dict[str, list[str]]:
        """What :meth:`images` passes over in folders, by the reason: names below the top."""
        by_reason: dict[str, list[str]] = {}
        for below in class_folders:
            for name in self.files(below):
                if not is_image(name):
                    by_reason.setdefault(_reason(name), []).append(f"{below}/{name}")
            inner = [f"{below}/{name}" for name in self.folders(below)]
            if inner:
                by_reason.setdefault("folders in class folders", []).extend(inner)
            links = [name for name in self._links if name.rpartition("/")[0] == below]
            if links:
                by_reason.setdefault("links, pipes and devices of the archive", []).extend(links)
        return by_reason

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
        except (*DAMAGE, RuntimeError, ValueError) as error:  # RuntimeError: encrypted
            raise RuntimeError(f"cannot read {self.shown(name)}: {reason(error)}") from None

    def text(self, name: str) -> str:
        """A file's content as UTF-8 text; errors as of :meth:`read`."""
        try:
            return self.read(name).decode()
        except UnicodeDecodeError as error:
            raise RuntimeError(f"{self.shown(name)} is not UTF-8 text ({error.reason} at byte {error.start})") from None

    def shown(self, name: str) -> str:
        """How a message names a file."""
        return str(self.path / name)


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image: one of :data:`IMAGE_SUFFIXES`, and no dot in front."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _reason(name: str) -> str:
    if name.startswith("."):
        return "hidden files"
    suffix = PurePosixPath(name).suffix
    return f"files of the type {suffix}" if suffix else "files without a suffix"


def lines(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """One line for each reason of :meth:`Tree.left_out`, with how many and the first.

    >>> lines({"hidden files": ["a/.x.png", "a/.y.png"]})
    ['left out, hidden files: 2 (a/.x.png, ...)']
    """
    return [
        printable(f"left out, {reason}: {len(names)} ({names[0]}{', ...' if len(names) > 1 else ''})")
        for reason, names in left_out.items()
    ]


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
