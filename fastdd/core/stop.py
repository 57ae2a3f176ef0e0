"""Ctrl-C and SIGTERM as a request that long work answers between two steps."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastdd.core import ranks

# A Ctrl-C reaches a rank from the terminal and from torchrun; a later one is meant to end what does not end.
_SAME_REQUEST_SECONDS = 2.0


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
    """An event that Ctrl-C or SIGTERM sets, so that a run ends between two steps, with a checkpoint.

    On a rank of a job, which may wait for another in vain, a second request ends it at once.
    """
    event = StopEvent()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    asked_at = 0.0

    def ask(*_) -> None:
        nonlocal asked_at
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
