"""After a script's own module has run, published functions that it defines become ours."""

import os
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

from fastdd.compat import deferred
from fastdd.compat.hook import counted, recognition, substitutes
from fastdd.compat.hook.summary import Summary
from fastdd.compat.shared import randomness

# Calls of each name that are compared when asked for, and where a function's text is not a published one.
CHECKS = 3


def enabled() -> bool:
    """Whether anything is replaced: not with FASTDD_COMPAT=0."""
    return os.environ.get("FASTDD_COMPAT", "1") != "0"


class _Loader(SourceFileLoader):
    """Python's own, with a look at the module afterwards."""

    hook: "Hook"

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        self.hook.look_at(module)


class Hook(MetaPathFinder):
    """Replaces names in the modules below a folder.

    Args:
        folder: the script's.
        verify: compare the first calls of every replaced name with the original.
    """

    def __init__(self, folder: str | os.PathLike, verify: bool = False):
        self.folder = Path(os.path.realpath(folder))
        self._verify = verify
        self._started = perf_counter()
        # Installed packages are no part of a script, even where its folder holds the environment.
        self._outside = {Path(os.path.realpath(sysconfig.get_path(kind))) for kind in ("purelib", "platlib", "stdlib")}
        self.entries: list[counted.Entry] = []
        self._ours: dict[int, tuple[Any, counted.Entry]] = {}
        self._known_local: dict[tuple[str, str | None], bool] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader or not self._local(name, spec.origin):
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        spec.loader.hook = self
        return spec

    def _local(self, name: str, file: str | None) -> bool:
        """Whether a module is a part of the script; remembered, for links are followed to tell."""
        if (name, file) not in self._known_local:
            self._known_local[name, file] = self._lies_below(name, file)
        return self._known_local[name, file]

    def _lies_below(self, name: str, file: str | None) -> bool:
        if file is None or name.partition(".")[0] == "fastdd":
            return False
        path = Path(os.path.realpath(file))
        inside = path.is_relative_to(self.folder) and "site-packages" not in path.parts
        return inside and not any(path.is_relative_to(folder) for folder in self._outside)

    def install(self) -> None:
        """Look at modules that are there, and at every later import."""
        # Before Python's own for paths, and after those for modules that no path can hide.
        sys.meta_path.insert(sys.meta_path.index(PathFinder), self)
        for name, module in list(sys.modules.items()):
            if name != "__main__" and self._local(name, getattr(module, "__file__", None)):
                self.look_at(module)

    def remove(self) -> None:
        """Look at no more imports; what was replaced stays."""
        sys.meta_path.remove(self)

    def look_at(self, module: ModuleType) -> None:
        """Replace what is known in a module that has been executed."""
        try:
            source = recognition.Source(Path(module.__file__).read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            return
        entries = {name: self._ours[id(value)][1] for name, value in vars(module).items() if id(value) in self._ours}
        for known in recognition.find(module, source, set(entries)):
            entry = counted.Entry(known.name, module.__name__, known.replacement, known.why, known.published)
            self.entries.append(entry)
            if known.replacement is None:
                continue
            entry.needs = [entries[name] for name in known.replacement.needs if name in entries]
            entry.checks = CHECKS if self._verify or not known.published else 0
            ours = counted.stand_in(entry, known.original)
            entries[known.name] = entry
            self._ours[id(ours)] = (ours, entry)
            self._rebind(known.original, ours)
            if isinstance(ours, type):
                entry.on_fallback = lambda old=known.original, new=ours: self._rebind(new, old)

    def _rebind(self, old: Any, new: Any) -> None:
        """Let every name for ``old`` in the script's modules stand for ``new``."""
        for name, module in list(sys.modules.items()):
            if name == "__main__" or self._local(name, getattr(module, "__file__", None)):
                for key, value in list(vars(module).items()):
                    if value is old:
                        setattr(module, key, new)

    def report(self) -> Summary:
        """What has been replaced, called and compared so far."""
        return Summary.of(self.entries, perf_counter() - self._started)

    def summary(self) -> str:
        """:meth:`report` as text."""
        return str(self.report())


def install(*, verify: bool = False, rng: str = "fast", seed: int | None = None, defer: bool = True) -> Hook:
    """Replace published functions in this script's own modules, those already imported and those to come.

    One line at the top of a script, for what ``fastdd run`` does without it; ``.summary()`` of what it returns tells
    what was replaced and called. With FASTDD_COMPAT=0 in the environment nothing is replaced.

    Args:
        verify: compare the first calls of every name with the original, and go back to it where they differ.
        rng: ``fast`` or ``legacy`` (:func:`fastdd.compat.use_rng`).
        seed: of ``fast`` (:func:`fastdd.compat.seed`).
        defer: compute together what a loop over classes or groups asks for (:mod:`fastdd.compat.deferred`).

    Raises:
        ValueError: another ``rng``.
    """
    randomness.use_rng(rng)
    if seed is not None:
        randomness.seed(seed)
    substitutes.install()
    file = getattr(sys.modules["__main__"], "__file__", None)
    hook = Hook(os.getcwd() if file is None else os.path.dirname(os.path.realpath(file)), verify)
    if enabled():
        deferred.use(defer)
        hook.install()
    return hook
