"""In a process that is to be killed: its file operations below a folder are counted, and one of them is its last."""

import _io
import builtins
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# Of Python's audit events: operations by the position of their path, and of the folder that it is relative to.
_EVENTS = {
    "os.mkdir": (0, 2),
    "os.rmdir": (0, 1),
    "os.remove": (0, 1),
    "os.rename": (1, 3),
    "os.link": (1, 3),
    "os.symlink": (1, 2),
    "os.truncate": (0, None),
    "os.chmod": (0, 2),
    "fcntl.flock": (0, None),
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Moments:
    """Counts what changes files below ``folder`` (and locks, which others see), and kills this process at one of them.

    A write is torn: half of its bytes are there. Any other operation has not happened.

    Args:
        folder: what lies elsewhere is not counted.
        last: number, from 1, of the operation that is the last; 0 for none.
        log: gets a line an operation, where there is one.
    """

    def __init__(self, folder: Path, last: int, log: Path | None = None):
        self._folder, self._last, self._number = os.path.realpath(folder), last, 0
        self._write = os.write
        self._log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def begin(self) -> None:
        """From here on, for as long as the process lives."""
        sys.addaudithook(self._hear)
        for name in ("write", "pwrite", "fsync", "posix_fallocate"):
            setattr(os, name, self._counted(name, getattr(os, name)))
        real = builtins.open
        opened = lambda *given, **named: self._open(real, *given, **named)  # noqa: E731
        builtins.open = io.open = _io.open = opened

    def _hear(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & _WRITES:
                self.meet("open", self._path(path))
        elif event in _EVENTS:
            path, folder = _EVENTS[event]
            self.meet(event, self._path(arguments[path], -1 if folder is None else arguments[folder]))

    @staticmethod
    def _path(path: Any, folder: int = -1) -> str:
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        path = os.fsdecode(path)
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path) if folder >= 0 else os.path.abspath(path)

    def meet(self, what: str, path: str, half: Callable[[], object] | None = None) -> None:
        """An operation is about to happen; ``half`` does a part of it."""
        if not path.startswith(self._folder):
            return
        self._number += 1
        if self._log is not None:
            self._write(self._log, f"{what} {os.path.relpath(path, self._folder)}\n".encode())
        if self._number == self._last:
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)

    def _counted(self, name: str, function: Callable) -> Callable:
        def counted(descriptor: int, *arguments: Any) -> Any:
            half = None
            if name in ("write", "pwrite"):
                content, *rest = arguments
                half = lambda: function(descriptor, memoryview(content).cast("B")[: len(content) // 2], *rest)  # noqa: E731
            self.meet(name, self._path(descriptor), half)
            return function(descriptor, *arguments)

        return counted

    def _open(self, real: Callable, file: Any, mode: str = "r", buffering: int = -1, *others: Any, **named: Any) -> Any:
        """Like ``open``; of a file that is written, with a raw file whose writes are counted."""
        if not set(mode) & set("wax+"):
            return real(file, mode, buffering, *others, **named)
        opener, closefd = named.pop("opener", None), named.pop("closefd", True)
        raw = _counted_file(self)(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, *others, **named, line_buffering=buffering == 1)
        text.mode = mode
        return text


def _counted_file(moments: Moments) -> type[io.FileIO]:
    class CountedFile(io.FileIO):
        def write(self, content: Any) -> int:
            view, write = memoryview(content).cast("B"), super().write
            moments.meet("write", moments._path(self.fileno()), lambda: write(view[: len(view) // 2]))
            return write(content)

        def truncate(self, size: int | None = None) -> int:
            moments.meet("truncate", moments._path(self.fileno()))
            return super().truncate(size)

    return CountedFile


def run(folder: str, command: list[str], last: int, log: str | None, old_system: bool) -> None:
    """Be the ``fastdd`` command in ``folder``, up to its operation ``last``; see :class:`kills.harness.Stage`."""
    from fastdd.cli import main
    from fastdd.core import files

    _make_small()
    if old_system:
        files.exchange = lambda one, other: False
    os.chdir(folder)
    Moments(Path(folder), last, None if log is None else Path(log)).begin()
    main(command)


def _make_small() -> None:
    """Of what is much in life, a little that goes the same ways: batches and checkpoints of builds, a table."""
    from fastdd import reproduce
    from fastdd.data.files import building, plan
    from fastdd.reproduce.budgets import Budget

    building._CHECKPOINT_BYTES, plan._BATCH_IMAGES = 1, 4
    dm = reproduce.Cell("c-digits:1", "DM", "c-digits", 1, None, "dm", "none", 1)
    mtt = replace(dm, column="MTT", method="mtt")
    table = reproduce.Table("tiny", "table", "two cells", ("accuracy",), (dm, mtt))
    net = {"width": 4, "depth": 1}
    settings = {
        "dm": {**net, "iterations": 2, "batch_real": 4},
        "mtt": {"iterations": 1, "syn_steps": 1, "expert_epochs": 1, "max_start_epoch": 1},
        "experts": {**net, "num_experts": 1, "epochs": 1, "eval_every": 0},
    }
    reproduce.paper_names, reproduce.read_paper = lambda: ["tiny"], lambda name: {"table": table}
    reproduce.BUDGETS = {"full": Budget("full", "Tiny.", settings, {"nets": 1, "epochs": 1}, {})}
