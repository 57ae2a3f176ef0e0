"""Modules that distillation scripts import and that may be missing: found last, so an installed one always wins."""

import importlib
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
        """Nothing: it has been executed under its own name. Its submodules get their second names."""
        for name, loaded in list(sys.modules.items()):
            if module is torchvision_substitute and name.startswith(f"{_OURS}."):
                sys.modules[f"torchvision{name.removeprefix(_OURS)}"] = loaded


class _LastFinder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == _SCIPY:
            return ModuleSpec(name, _Substitute(importlib.import_module("scipy.ndimage")))
        if name == "torchvision":
            return ModuleSpec(name, _Substitute(torchvision_substitute), is_package=True)
        if name.startswith("torchvision.") and sys.modules["torchvision"] is torchvision_substitute:
            return ModuleSpec(name, _Substitute(_Absent(name)), is_package=True)
        return None


def install() -> None:
    """Offer the substitutes to every import that finds nothing else."""
    if not any(isinstance(finder, _LastFinder) for finder in sys.meta_path):
        sys.meta_path.append(_LastFinder())


def in_use() -> list[str]:
    """Packages whose substitutes have been imported."""
    return [name for name, module in [("torchvision", torchvision_substitute)] if sys.modules.get(name) is module]
