"""Modules that distillation scripts import and that may be missing: found last, so an installed one always wins."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from fastdd.compat import torchvision_substitute
from fastdd.compat.torchvision_substitute.missing import missing

_OURS = torchvision_substitute.__name__
# Gone in SciPy 2; what was in it is in scipy.ndimage.
_SCIPY = "scipy.ndimage.interpolation"


class _Absent(ModuleType):
    """A submodule that the substitute lacks: importing from it works, using what was imported says what is missing."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> type:
        return missing(f"{self.__name__.removeprefix('torchvision.')}.{name}")


class _Substitute(Loader):
    def __init__(self, module: ModuleType):
        self._module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """It has been executed under its own name."""


class _LastFinder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == _SCIPY:
            return ModuleSpec(name, _Substitute(importlib.import_module("scipy.ndimage")))
        top, _, rest = name.partition(".")
        if top != "torchvision" or (rest and sys.modules["torchvision"] is not torchvision_substitute):
            return None
        own = f"{_OURS}.{rest}" if rest else _OURS
        module = importlib.import_module(own) if importlib.util.find_spec(own) else _Absent(name)
        return ModuleSpec(name, _Substitute(module), is_package=hasattr(module, "__path__"))


def install() -> None:
    """Offer the substitutes to every import that finds nothing else."""
    if not any(isinstance(finder, _LastFinder) for finder in sys.meta_path):
        sys.meta_path.append(_LastFinder())


def in_use() -> list[str]:
    """Packages whose substitutes have been imported."""
    return [name for name, module in [("torchvision", torchvision_substitute)] if sys.modules.get(name) is module]
