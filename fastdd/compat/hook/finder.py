"""After a script's own module has run, published functions that it defines become ours."""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import decode_source
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

from torch import nn

from fastdd.compat.hook import blocks, counted, layer_loops, recognition
from fastdd.compat.hook.places import Places
from fastdd.compat.hook.summary import Summary

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
    """Replaces names in a script's own modules (:class:`.places.Places`).

    Args:
        folder: the script's.
        verify: compare the first calls of every replaced name with the original.
    """

    def __init__(self, folder: str | os.PathLike, verify: bool = False):
        self.folder = folder
        self._places = Places(folder)
        self._verify = verify
        self._started = perf_counter()
        self.entries: list[counted.Entry] = []
        self._with_blocks: set[type[nn.Module]] = set()
        self._ours: dict[int, tuple[Any, counted.Entry]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader or not self._places.have(name, spec.origin):
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        spec.loader.hook = self
        return spec

    def install(self) -> None:
        """Look at modules that are there, and at every later import."""
        # Before Python's own for paths, and after those for modules that no path can hide.
        sys.meta_path.insert(sys.meta_path.index(PathFinder), self)
        for name, module in self._places.modules():
            if name != "__main__":
                self.look_at(module)

    def look_at_main(self) -> None:
        """Replace what the script itself has defined so far; nothing where it has no file, as in a notebook."""
        main = sys.modules["__main__"]
        if getattr(main, "__file__", None) is not None:
            self.look_at(main)

    def remove(self) -> None:
        """Look at no more imports; what was replaced stays."""
        sys.meta_path.remove(self)

    def look_at(self, module: ModuleType, source: recognition.Source | None = None) -> None:
        """Replace what is known in a module that has been executed, or in as much of one as has been.

        ``source``: its text, if it is not that of its file.
        """
        try:
            source = source or recognition.Source(Path(module.__file__).read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            return
        # What was left alone at an earlier look may have had to wait for what it calls.
        self.entries = [e for e in self.entries if e.module != module.__name__ or e.replacement is not None]
        entries = {name: self._ours[id(value)][1] for name, value in vars(module).items() if id(value) in self._ours}
        for known in recognition.find(module, source, set(entries)):
            entry = counted.Entry(known.name, module.__name__, known.replacement, known.why, known.published)
            entry.copy_of, entry.extra, entry.output = known.copy_of, known.extra, known.output
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
                entry.on_fallback = lambda old=known.original, new=ours: self._go_back(new, old)
        for network in recognition.own_networks(module, source):
            if id(network) not in self._ours and self._give_blocks(network):
                loops = recognition.layer_loops(network, source)
                self.entries += [layer_loops.within(network, name, CHECKS) for name in loops]

    def _go_back(self, ours: type, original: type) -> None:
        self._rebind(ours, original)
        if issubclass(original, nn.Module):
            self._give_blocks(original)

    def _give_blocks(self, network: type[nn.Module]) -> bool:
        """Whether it had none yet."""
        if network in self._with_blocks:
            return False
        self._with_blocks.add(network)
        blocks.within(network, CHECKS, lambda entry: self.entries.append(entry))
        return True

    def source_of_main(self, content: bytes) -> recognition.Source | None:
        """A script's text, if it defines something itself that may be replaced."""
        try:
            source = recognition.Source(decode_source(content))
        except (SyntaxError, ValueError):
            return None
        return source if recognition.of_interest(source) else None

    def _rebind(self, old: Any, new: Any) -> None:
        """Let every name for ``old`` in the script's modules stand for ``new``."""
        own = [module for name, module in self._places.modules() if name != "__main__"]
        for module in (*own, sys.modules["__main__"]):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)

    def report(self) -> Summary:
        """What has been replaced, called and compared so far."""
        return Summary.of(self.entries, perf_counter() - self._started)

    def summary(self) -> str:
        """:meth:`report` as text."""
        return str(self.report())
