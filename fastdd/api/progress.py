"""Progress of the verbs: a bar on a terminal or in a notebook, plain lines elsewhere."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator

from fastdd.core import ranks
from fastdd.core.progress import Lines, Work

# Between two lines where there is no terminal; the first comes at once.
_LINE_SECONDS = 10.0
Update = Callable[[int, int, str], None]


@contextlib.contextmanager
def shown(title: str) -> Iterator[Update]:
    """Yields ``update(done, total, note)``; on rank 0 it is seen on standard error."""
    work = Work(title)
    if ranks.rank() > 0:
        yield work.update
    elif sys.stderr.isatty() or _draws_widgets():
        with _bar(work) as update:
            yield update
    else:
        lines = Lines(work, 0, _LINE_SECONDS)

        def update(done: int, total: int, note: str) -> None:
            work.update(done, total, note)
            lines.update()

        yield update
        lines.end()


def _draws_widgets() -> bool:
    """Whether this is a notebook in which rich can draw: without ipywidgets it warns and shows nothing."""
    return "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is not None


@contextlib.contextmanager
def _bar(work: Work) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(BarColumn(), TextColumn("{task.description}", markup=False), console=Console(stderr=True)) as bar:
        task = bar.add_task(work.line(), total=None)

        def update(done: int, total: int, note: str) -> None:
            work.update(done, total, note)
            bar.update(task, completed=done, total=total, description=work.line())

        yield update
