"""Terminal output: tables that fit, progress, and how much is said."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.progress import Progress as Bar
from rich.progress import ProgressColumn, Task
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fastdd.cli.fit import Fitted
from fastdd.cli.talk import talk
from fastdd.core import ranks
from fastdd.core.progress import Lines, Work
from fastdd.core.text import printable

# Seconds until the first line of progress where there is no terminal.
_FIRST_LINE = 10.0
PROGRESS_SECONDS = "FASTDD_PROGRESS_SECONDS"
_FILE_WIDTH = 140  # of tables that go to a file, of whose reader nothing is known


class PlainConsole(Console):
    """A console on which names can't move the cursor, ring, or hide: control characters are shown as marks.

    Tables are laid out so that they fit (:mod:`fastdd.cli.fit`).
    """

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def print(self, *objects: Any, **settings: Any) -> None:
        if len(objects) == 1 and isinstance(objects[0], Table):
            super().print(Fitted(objects[0]), **{**settings, "soft_wrap": False})
        elif not talk.quiet or not isinstance(objects[0] if objects else None, str) or _is_warning(objects[0]):
            super().print(*objects, **settings)


def _is_warning(text: str) -> bool:
    return text.lstrip().startswith("warning:")


def output_width() -> int | None:
    """Of tables; None: the terminal's, or that of the variable COLUMNS, whichever a stream leads to."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    terminal = any(stream is not None and not stream.closed and stream.isatty() for stream in streams)
    return None if terminal or os.environ.get("COLUMNS", "").isdigit() else _FILE_WIDTH


console = PlainConsole(width=output_width(), highlight=False, markup=False, soft_wrap=True)


def _memory() -> str:
    """Peak memory of this process (where the system tells) and, if it is used, of the GPU."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        text = ""
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        text = f"{peak / 2**30:.1f} GiB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        text += f", GPU {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    return text


class _Line(ProgressColumn):
    """All of a progress bar, as much of it as the terminal is wide."""

    def __init__(self, work: Work, console: Console):
        super().__init__()
        self._work, self._console = work, console

    def render(self, task: Task) -> Text:
        return Text(self._work.line(self._console.width - 1, _memory(), bar=True), no_wrap=True)


@contextmanager
def bar(title: str) -> Iterator:
    """Rank 0's progress: a bar on a terminal, elsewhere a plain line every so often, with rate and time left.

    Yields ``update(done, total, note, rate)``; ``rate`` in steps a second. :data:`PROGRESS_SECONDS` names a variable of
    the environment: seconds from line to line.
    """
    work = Work(printable(title))
    if talk.quiet or ranks.rank() > 0:
        yield work.update
        return
    talk.more(f"{title}: begins")
    if not sys.stderr.isatty():
        lines = Lines(work, _FIRST_LINE, progress_seconds())

        def update(done: int, total: int, note: str = "", rate: float | None = None) -> None:
            work.update(done, total, note, rate)
            lines.update(_memory())

        yield update
        lines.end()
        talk.more(f"{title}: done, {work.elapsed:.1f} s, {_memory()}")
        return
    errors = PlainConsole(stderr=True)
    # What is printed goes above the bar, but not what goes to a file.
    shown = Bar(_Line(work, errors), console=errors, transient=True, redirect_stdout=sys.stdout.isatty())
    with shown:
        shown.add_task("", total=None)
        yield work.update
    talk.more(f"{title}: done, {work.elapsed:.1f} s, {_memory()}")


def progress_seconds() -> float:
    """Seconds from line to line of progress where there is no terminal; 0 for none."""
    text = os.environ.get(PROGRESS_SECONDS, "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{PROGRESS_SECONDS} must be seconds, or 0 for no lines of progress, not {text!r}")
    return seconds
