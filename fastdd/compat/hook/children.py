"""Processes that a script starts anew (multiprocessing's spawn and forkserver) get the same hook before they import it.

What a parent sends such a process first is a pickled table of names for it to start from. Ours adds one entry, whose
unpickling installs the hook there: nothing else runs before, and a process without it would start as usual.
"""

import importlib.util
import multiprocessing
import multiprocessing.spawn
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from fastdd.compat import deferred
from fastdd.compat.hook import finder, script, substitutes
from fastdd.compat.hook.cpu import OnCpu
from fastdd.compat.shared import randomness


@dataclass(frozen=True)
class Settings:
    """What a hook in another process needs to be the same; draws are other ones there.

    Attributes:
        folder: the script's.
        verify, on_cpu, wandb: as for the parent's.
        mode, seed: of the draws, set when a child is started; its seed is derived from its parent's and its number.
        replacing: False with FASTDD_COMPAT=0.
        defer: of loops over classes.
    """

    folder: str
    verify: bool = False
    on_cpu: bool = False
    wandb: bool = False
    mode: str = "fast"
    seed: int = 0
    replacing: bool = True
    defer: bool = True


class _Started:
    """Installs the hook where it is unpickled."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def __reduce__(self) -> tuple[Callable, tuple[Settings]]:
        return install, (self._settings,)


def install(settings: Settings) -> None:
    """In a new process: what ``fastdd run`` does before the script, and the same for its own children."""
    substitutes.install(wandb=settings.wandb)
    randomness.use_rng(settings.mode)
    randomness.seed(settings.seed)
    if settings.on_cpu:
        OnCpu().install()
    if settings.replacing:
        deferred.use(settings.defer)
        hook = finder.Hook(settings.folder, settings.verify)
        hook.install()
        _execute_main_with(hook)
    follow(settings)


def _execute_main_with(hook: finder.Hook) -> None:
    """Have the script, which a new process executes as the module ``__mp_main__``, looked at as it is."""
    by_path: Callable[[str], None] = multiprocessing.spawn._fixup_main_from_path
    by_name: Callable[[str], None] = multiprocessing.spawn._fixup_main_from_name

    def from_path(path: str) -> None:
        there = getattr(sys.modules["__main__"], "__file__", None) == path
        if there or Path(path).suffix != ".py" or Path(path).stem == "ipython":
            by_path(path)
        else:
            script.execute_again(path, SourceFileLoader("__mp_main__", path), None, hook)

    def from_name(name: str) -> None:
        spec = None if name.rpartition(".")[2] == "__main__" else importlib.util.find_spec(name)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            by_name(name)
        else:
            script.execute_again(spec.origin, spec.loader, spec, hook)

    multiprocessing.spawn._fixup_main_from_path = from_path
    multiprocessing.spawn._fixup_main_from_name = from_name


def follow(settings: Settings) -> None:
    """From now on, give the hook to every process that is started anew."""
    original: Callable[[str], dict[str, Any]] = multiprocessing.spawn.get_preparation_data
    original = getattr(original, "_original", original)
    started = 0

    def with_hook(name: str) -> dict[str, Any]:
        nonlocal started
        started += 1
        given = replace(settings, mode=randomness.mode(), seed=randomness.child_seed(started))
        return {**original(name), "fastdd": _Started(given)}

    with_hook._original = original
    multiprocessing.spawn.get_preparation_data = with_hook
