"""Where a script's own modules may lie: below its folder, and below folders that it puts on ``sys.path``."""

import functools
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# As strings: of two thousand modules each is asked for, when a script starts.
_INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


def _real(folder: str | os.PathLike) -> str:
    """The folder without links, and with a separator at its end, so that what lies below it begins with it."""
    return os.path.join(os.path.realpath(folder), "")


_real_folder = functools.lru_cache(maxsize=None)(_real)


@functools.cache
def _real_absolute(file: str) -> str:
    folder, name = os.path.split(file)
    if os.path.islink(file) or name in ("", ".", ".."):
        return os.path.realpath(file)
    return _real_folder(folder) + name


def _real_file(file: str) -> str:
    """A file without links in its path; it and its folder are asked for once."""
    return _real_absolute(file) if os.path.isabs(file) else os.path.realpath(file)


def _named_by_links(folder: str) -> Iterator[str]:
    """What ``.pth`` files of a folder of installed packages put on ``sys.path``, such as editable installs."""
    for file in sorted(Path(folder).glob("*.pth")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.strip() and not line.startswith(("#", "import ", "import\t")):
                yield _real(os.path.join(folder, line.strip()))


def _at_start() -> set[str]:
    """Folders that were on ``sys.path`` before any script ran: of the environment's variable, and of ``.pth`` files."""
    folders = {_real(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    for kept in {*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("purelib")}:
        folders.update(_named_by_links(_real(kept)))
    return folders


class Places:
    """Tells whether a module is a part of a script, by the place of its file.

    A part is what lies below the script's folder, below a folder that has come to ``sys.path`` since the interpreter
    started (``sys.path.append("../")``), or below one on it that holds the script's folder; never what is installed
    (the standard library, ``site-packages``), nor fastdd.

    Args:
        folder: the script's.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = _real(folder)
        self._at_start = _at_start()
        # An environment may lie within a checkout.
        self._outside = tuple(
            _real(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib", "platstdlib")
        )
        self._seen: list[str] = []
        self._roots: tuple[str, ...] = ()
        self._known: dict[tuple[str, str | None], bool] = {}

    def have(self, name: str, file: str | None) -> bool:
        """Whether the module ``name`` is a part of the script; remembered, for links are followed to tell."""
        self._look_at_path()
        return self._have(name, file)

    def modules(self) -> list[tuple[str, ModuleType]]:
        """Modules that have been imported and are a part of the script, by the names of ``sys.modules``."""
        self._look_at_path()
        everything = list(sys.modules.items())
        return [(name, made) for name, made in everything if self._have(name, getattr(made, "__file__", None))]

    def _look_at_path(self) -> None:
        if sys.path != self._seen:
            self._seen = list(sys.path)
            self._roots = self._roots_of(sys.path)
            self._known.clear()

    def _have(self, name: str, file: str | None) -> bool:
        key = name, file
        if key not in self._known:
            self._known[key] = self._is_part(name, file)
        return self._known[key]

    def _roots_of(self, path: list[str]) -> tuple[str, ...]:
        folders = {_real(entry) for entry in path if isinstance(entry, str) and os.path.isdir(entry or ".")}
        new = {entry for entry in folders if entry not in self._at_start or self.folder.startswith(entry)}
        return self.folder, *(entry for entry in new if not self._installed(entry))

    def _installed(self, path: str) -> bool:
        return any(part in path for part in _INSTALLED) or path.startswith(self._outside)

    def _is_part(self, name: str, file: str | None) -> bool:
        if file is None or name.partition(".")[0] == "fastdd":
            return False
        path = _real_file(file)
        return path.startswith(self._roots) and not self._installed(path)
