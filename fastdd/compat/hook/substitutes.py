"""Modules that distillation scripts import and that may be missing: found last, so an installed one always wins."""

import builtins
import functools
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

import numpy as np

from fastdd.compat.hook import torchvision_substitute, wandb_stand_in

_OURS = torchvision_substitute.__name__
# Gone in SciPy 2; what was in it is in scipy.ndimage.
_SCIPY = "scipy.ndimage.interpolation"
# Python's own types, which numpy called its own until 1.24: IDC's CutMix has ``np.int(...)``.
_NUMPY = ("bool", "complex", "float", "int", "object", "str")


class _Missing(type):
    """A class that can be named, imported and derived from; to use it is an error that says what is missing."""

    def __call__(cls, *_: object, **__: object) -> NoReturn:
        raise ImportError(f"{cls.__name__} needs torchvision, which is not installed")

    def __getattr__(cls, name: str) -> "_Missing":
        return _missing(cls.__name__, name)


def _missing(where: str, name: str) -> type:
    """What stands for ``name`` of a module or class, such as ``transforms.ColorJitter``."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _Missing(f"{where}.{name}" if where else name, (), {})


class _Absent(ModuleType):
    """A submodule that the substitute lacks: importing from it works, using what was imported says what is missing."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> type:
        return _missing(self.__name__.removeprefix("torchvision."), name)


class _Substitute(Loader):
    def __init__(self, module: ModuleType):
        self._module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it has been executed under its own name. Its submodules get their second names."""
        for name, loaded in list(sys.modules.items()):
            if module is torchvision_substitute and f"{name}.".startswith(f"{_OURS}."):
                sys.modules[f"torchvision{name.removeprefix(_OURS)}"] = loaded
                # Only now that scripts see it: other tools ask modules for all kinds of names.
                loaded.__getattr__ = functools.partial(_missing, name.removeprefix(_OURS).removeprefix("."))


class _LastFinder(MetaPathFinder):
    def __init__(self) -> None:
        self.wandb = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == _SCIPY:
            return ModuleSpec(name, _Substitute(importlib.import_module("scipy.ndimage")))
        if name == "wandb" and self.wandb:
            return ModuleSpec(name, _Substitute(wandb_stand_in))
        if name == "torchvision":
            return ModuleSpec(name, _Substitute(torchvision_substitute), is_package=True)
        if name.startswith("torchvision.") and sys.modules["torchvision"] is torchvision_substitute:
            return ModuleSpec(name, _Substitute(_Absent(name)), is_package=True)
        return None


def install(*, wandb: bool = False) -> None:
    """Offer the substitutes to every import that finds nothing else, and numpy's old names for Python's types.

    ``wandb``: a stand-in for wandb too, which keeps nothing.
    """
    for name in _NUMPY:
        if name not in vars(np):  # hasattr would ask numpy, which raises an error that explains
            setattr(np, name, getattr(builtins, name))
    finder = next((finder for finder in sys.meta_path if isinstance(finder, _LastFinder)), None)
    if finder is None:
        sys.meta_path.append(finder := _LastFinder())
    finder.wandb = finder.wandb or wandb


def in_use() -> list[str]:
    """Packages whose substitutes have been imported."""
    ours = {"torchvision": torchvision_substitute, "wandb": wandb_stand_in}
    return [name for name, module in ours.items() if sys.modules.get(name) is module]
