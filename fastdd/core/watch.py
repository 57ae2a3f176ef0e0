"""What ranks know of each other beside their collectives: that they are alive, and which calls they have made; and of
torchrun, that it is there.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch.distributed import Store

Result = TypeVar("Result")

# How often a rank says that it is alive, and how often one that waits looks at what the others say.
BEAT_SECONDS, LOOK_SECONDS = 5.0, 1.0
# For a rank without torchrun to end by itself, with a checkpoint; torchrun gives as long.
_GRACE_SECONDS = 30.0
ORPHANED = "torchrun, which started this job, has ended (killed?); start again, a run or experts with --resume"
SAME = "all must make the same calls with the same data and settings"
# Of a rank's calls, for the others to compare with theirs.
_CALLS_KEPT = 64


def _main_clock() -> Callable[[], float]:
    """Processor seconds of the main thread; another number at every call where the system does not tell."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic
    clock = time.pthread_getcpuclockid(threading.main_thread().ident)
    return lambda: time.clock_gettime(clock)


class Watch:
    """One rank's view of the others, over the job's store.

    Attributes:
        calls: names of the collectives that this rank has begun, which the caller adds to.
    """

    def __init__(self, store: "Store", rank: int, world: int, *, launched: bool):
        self.calls: list[str] = []
        self._store, self._rank, self._world = store, rank, world
        self._launcher = os.getppid() if launched else None
        self._ended = threading.Event()
        here = threading.current_thread() is threading.main_thread()
        self._worked = _main_clock() if here else time.monotonic
        # A thread: it goes on while this rank works alone for hours, and stands still when the process does.
        threading.Thread(target=self._beat, name="fastdd-rank-is-alive", daemon=True).start()

    def _beat(self) -> None:
        before = -1.0
        while not self._ended.wait(BEAT_SECONDS):
            if self.orphaned():
                self._end_without_launcher()
                return
            # A computation takes processor time however long it is, and so does waiting for other ranks here; a main
            # thread that waits for a lock or a pipe for ever takes none, and is no more alive than a stopped process.
            worked = self._worked()
            if worked != before:
                self.ask(lambda: self._store.add(f"alive/{self._rank}", 1), None)
            before = worked

    def ask(self, call: Callable[[], Result], otherwise: Result) -> Result:
        """What ``call`` finds in the job's store; ``otherwise`` where that is gone. It is in torchrun's process, and
        PyTorch prints pages of addresses where it misses it."""
        if self.orphaned():
            return otherwise
        try:
            return call()
        except RuntimeError:
            return otherwise

    def orphaned(self) -> bool:
        """Whether torchrun, which started this process, is gone: nobody would end this rank after the others."""
        return self._launcher is not None and os.getppid() != self._launcher

    def _end_without_launcher(self) -> None:
        """As torchrun ends ranks: by SIGTERM, which a run answers with a checkpoint, and after a while at once."""
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)
            self._ended.wait(_GRACE_SECONDS)
            if self._ended.is_set():
                return
        if self._rank == 0:
            print(f"error: {ORPHANED}", file=sys.stderr, flush=True)
        os._exit(1)

    def end(self) -> None:
        self._ended.set()

    def silence(self, seen: dict[int, tuple[int, float]]) -> float:
        """For how many seconds the most silent of the others has not been alive.

        Args:
            seen: of every rank its last beat and when it was first seen, kept by the caller from look to look.
        """
        now = time.monotonic()
        for other in set(range(self._world)) - {self._rank}:
            beat = self.ask(lambda other=other: self._store.add(f"alive/{other}", 0), -1)
            if seen.setdefault(other, (beat, now))[0] != beat:
                seen[other] = beat, now
        return max((now - since for _, since in seen.values()), default=0.0)

    def check_calls(self) -> None:
        """ValueError if ranks that wait have not made the same calls: what they wait for would never come."""
        first = max(0, len(self.calls) - _CALLS_KEPT)
        self.ask(lambda: self._store.set(f"calls/{self._rank}", json.dumps([first, self.calls[first:]])), None)
        for other in set(range(self._world)) - {self._rank}:
            key = f"calls/{other}"
            if not self.ask(lambda key=key: self._store.check([key]), False):
                continue
            start, calls = json.loads(self.ask(lambda key=key: self._store.get(key), "[0, []]"))
            for number in range(max(first, start), min(len(self.calls), start + len(calls))):
                if self.calls[number] != calls[number - start]:
                    said = {self._rank: self.calls[number], other: calls[number - start]}
                    told = " and ".join(f"{said[rank]} on rank {rank}" for rank in sorted(said))
                    raise ValueError(f"the ranks of this job do not make the same calls ({told}): {SAME}")
