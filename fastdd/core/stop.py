"""Ctrl-C, SIGTERM and SIGUSR1 as a request that long work answers between two steps."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from fastdd.core import ranks

# A Ctrl-C reaches a rank from the terminal and from torchrun; a later one is meant to end what does not end.
_SAME_REQUEST_SECONDS = 2.0
# What schedulers send before they end a job; SIGUSR1 is Slurm's --signal, and not every system has it.
OF_SCHEDULERS = (signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))

_asked_by: int | None = None


def asked_by() -> int | None:
    """The signal of the last request to end; None before any, or after :func:`forget`."""
    return _asked_by


def forget() -> None:
    """At the start of a command: no signal has come."""
    global _asked_by
    _asked_by = None


def end(number: int, *_: Any) -> NoReturn:
    """A handler: the signal ends what is done now, as Ctrl-C does."""
    _remember(number)
    raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")


def _remember(number: int) -> None:
    global _asked_by
    _asked_by = number


class StopEvent(threading.Event):
    """Set when a run shall end; within :meth:`at_once` that is a KeyboardInterrupt."""

    raises = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that takes long, and of which nothing has to be kept."""
        self.raises = True
        try:
            if self.is_set():
                raise KeyboardInterrupt
            yield
        finally:
            self.raises = False


@contextmanager
def stop_requests() -> Iterator[StopEvent]:
    """An event that Ctrl-C, SIGTERM or SIGUSR1 sets, so that a run ends between two steps, with a checkpoint.

    A handler of SIGUSR1 that the caller has stays; the others are put back at the end.

    On a rank of a job, which may wait for another in vain, a second request ends it at once.
    """
    event = StopEvent()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, *OF_SCHEDULERS)}
    old = {
        n: known for n, known in old.items() if n in (signal.SIGINT, signal.SIGTERM) or known in (signal.SIG_DFL, end)
    }
    asked_at = 0.0

    def ask(number: int, *_: Any) -> None:
        nonlocal asked_at
        _remember(number)
        if not event.is_set():
            asked_at = time.monotonic()
            event.set()
            if event.raises:
                raise KeyboardInterrupt
        elif ranks.world() > 1 and time.monotonic() - asked_at > _SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt("ended without a checkpoint; --resume continues from the one before")

    for number in old:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
