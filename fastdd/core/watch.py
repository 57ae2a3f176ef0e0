"""What ranks know of each other beside their collectives: that they are alive, and which calls they have made."""

import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch.distributed import Store

Result = TypeVar("Result")

# How often a rank says that it is alive, and how often one that waits looks at what the others say.
BEAT_SECONDS, LOOK_SECONDS = 5.0, 1.0
SAME = "all must make the same calls with the same data and settings"
# Of a rank's calls, for the others to compare with theirs.
_CALLS_KEPT = 64


def quietly(call: Callable[[], Result], otherwise: Result) -> Result:
    """What ``call`` returns; ``otherwise`` where the job's store is gone."""
    try:
        return call()
    except RuntimeError:
        return otherwise


class Watch:
    """One rank's view of the others, over the job's store.

    Attributes:
        calls: names of the collectives that this rank has begun, which the caller adds to.
    """

    def __init__(self, store: "Store", rank: int, world: int):
        self.calls: list[str] = []
        self._store, self._rank, self._world = store, rank, world
        self._ended = threading.Event()
        # A thread: it goes on while this rank works alone for hours, and stands still when the process does.
        threading.Thread(target=self._beat, name="fastdd-rank-is-alive", daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            quietly(lambda: self._store.add(f"alive/{self._rank}", 1), None)

    def end(self) -> None:
        self._ended.set()

    def silence(self, seen: dict[int, tuple[int, float]]) -> float:
        """For how many seconds the most silent of the others has not been alive.

        Args:
            seen: of every rank its last beat and when it was first seen, kept by the caller from look to look.
        """
        now = time.monotonic()
        for other in set(range(self._world)) - {self._rank}:
            beat = quietly(lambda other=other: self._store.add(f"alive/{other}", 0), -1)
            if seen.setdefault(other, (beat, now))[0] != beat:
                seen[other] = beat, now
        return max((now - since for _, since in seen.values()), default=0.0)

    def check_calls(self) -> None:
        """ValueError if ranks that wait have not made the same calls: what they wait for would never come."""
        first = max(0, len(self.calls) - _CALLS_KEPT)
        quietly(lambda: self._store.set(f"calls/{self._rank}", json.dumps([first, self.calls[first:]])), None)
        for other in set(range(self._world)) - {self._rank}:
            key = f"calls/{other}"
            if not quietly(lambda key=key: self._store.check([key]), False):
                continue
            start, calls = json.loads(quietly(lambda key=key: self._store.get(key), "[0, []]"))
            for number in range(max(first, start), min(len(self.calls), start + len(calls))):
                if self.calls[number] != calls[number - start]:
                    said = {self._rank: self.calls[number], other: calls[number - start]}
                    told = " and ".join(f"{said[rank]} on rank {rank}" for rank in sorted(said))
                    raise ValueError(f"the ranks of this job do not make the same calls ({told}): {SAME}")
