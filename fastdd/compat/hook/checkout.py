"""A folder of someone else's code, imported by itself: nothing of it stays behind, nothing is written to it."""

import importlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import ClassVar

_MOST_STAND_INS = 50


class _Empty(type):
    """A class whose every attribute is one of these: it can be named, imported from and derived from, not used."""

    def __getattr__(cls, name: str) -> "_Empty":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Empty(name, (), {})


class _StandIn(ModuleType):
    """A missing module."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> _Empty:
        return getattr(_Empty(self.__name__, (), {}), name)


def modules(folder: Path, names: Sequence[str]) -> list[ModuleType]:
    """Import the modules ``names`` of ``folder``; ``sys.modules`` and ``sys.path`` are as before afterwards.

    Packages that they import and that are missing here (torchvision, say) are replaced by empty stand-ins, which can
    be named and derived from but do nothing.

    Raises:
        RuntimeError: a module can't be imported.
    """
    with _importing_from(folder):
        return [_import(name, folder) for name in names]


def _import(name: str, folder: Path) -> ModuleType:
    for _ in range(_MOST_STAND_INS):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name in sys.modules:
                raise RuntimeError(f"{folder}: {name}.py can't be imported: {error}") from error
            sys.modules[error.name] = _StandIn(error.name)
        except Exception as error:
            raise RuntimeError(f"{folder}: {name}.py can't be imported: {error}") from error
    raise RuntimeError(f"{folder}: {name}.py imports more than {_MOST_STAND_INS} modules that are missing")


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    before, path, wrote = dict(sys.modules), list(sys.path), sys.dont_write_bytecode
    for name in before:
        if name.partition(".")[0] in names:
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, wrote
        for name, module in list(sys.modules.items()):
            if isinstance(module, _StandIn) or name.partition(".")[0] in names:
                del sys.modules[name]
        sys.modules.update(before)
