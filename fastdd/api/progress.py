"""Progress of the verbs: a bar on a terminal or in a notebook, plain lines elsewhere."""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from fastdd.core import ranks

# Between two lines where there is no terminal.
_LINE_SECONDS = 10.0
Update = Callable[[int, int, str], None]


@contextlib.contextmanager
def shown(title: str) -> Iterator[Update]:
    """Yields ``update(done, total, note)``; on rank 0 it is seen on standard error."""
    if ranks.rank() > 0:
        yield lambda done, total, note: None
    elif sys.stderr.isatty() or _draws_widgets():
        with _bar(title) as update:
            yield update
    else:
        yield _lines(title, sys.stderr)


def _draws_widgets() -> bool:
    """Whether this is a notebook in which rich can draw: without ipywidgets it warns and shows nothing."""
    return "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is not None


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True, markup=False)
    with Progress(*columns, TextColumn("{task.fields[note]}", markup=False), console=console) as bar:
        task = bar.add_task(title, total=None, note="")
        yield lambda done, total, note: bar.update(task, completed=done, total=total, note=note)


def _lines(title: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Update:
    """A line at first, every ten seconds, and at the end, with the rate and what is left."""
    began, last = clock(), -_LINE_SECONDS + clock()
    first: int | None = None

    def update(done: int, total: int, note: str) -> None:
        nonlocal last, first
        now = clock()
        first = done if first is None else first
        if now - last < _LINE_SECONDS and done < total:
            return
        last = now
        rate = (done - first) / (now - began) if now > began else 0
        left = f", {rate:.2f}/s, {(total - done) / rate:.0f} s left" if rate and done < total else ""
        print(f"{title}: {done} of {total}, {note}{left}", file=stream, flush=True)

    return update
