"""Terminal output: progress on a terminal, silence elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.segment import Segment

from fastdd.core import ranks
from fastdd.core.text import printable


class PlainConsole(Console):
    """A console on which names can't move the cursor, ring, or hide: control characters are shown as marks."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


# Wide enough for result tables when the output goes to a file.
_TERMINAL = sys.stdout is not None and sys.stdout.isatty()
console = PlainConsole(width=None if _TERMINAL else 140, highlight=False, markup=False, soft_wrap=True)


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


@contextmanager
def bar(title: str) -> Iterator:
    """Rank 0's progress bar on a terminal. Yields ``update(done, total, note, rate)``; ``rate`` in steps a second."""
    shown = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=PlainConsole(stderr=True),
        disable=not sys.stderr.isatty() or ranks.rank() > 0,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # what is printed goes above the bar, but not what goes to a file
    )
    with shown:
        task = shown.add_task(title, total=None, note="")

        def update(done: int, total: int, note: str = "", rate: float | None = None) -> None:
            speed = "" if rate is None else f"{rate:.2f} it/s  "
            shown.update(task, completed=done, total=total, note=f"{speed}{note}  {_memory()}")

        yield update
