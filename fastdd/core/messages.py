"""What ranks tell rank 0 while they work."""

import json
from collections.abc import Iterator
from typing import Any

from fastdd.core import ranks


class Messages:
    """What ranks report to rank 0 while they work, and a wish to stop that any of them has; over the job's store.

    All ranks make one at the same place. Messages are JSON-able.
    """

    def __init__(self):
        self._own: list[Any] = []
        self._read: dict[int, int] = {}
        self._rank, self._sent, self._store = ranks.rank(), 0, None
        if ranks.world() > 1:
            job = ranks.joined()
            self._store, self._name = job.store, job.name()
            self._read = {} if job.rank else dict.fromkeys(range(1, job.world), 0)

    def _there(self):
        """The job's store; RankLost where it is gone with torchrun, of which PyTorch would print pages."""
        if gone := ranks.orphaned():
            raise ranks.RankLost(gone)
        return self._store

    def send(self, message: Any) -> None:
        """To rank 0, which may do so too."""
        if self._rank == 0:
            self._own.append(message)
        else:
            self._there().set(f"{self._name}/{self._rank}/{self._sent}", json.dumps(message))
            self._sent += 1

    def received(self) -> Iterator[Any]:
        """On rank 0, what came since the last call; nothing elsewhere."""
        while self._own:
            yield self._own.pop(0)
        for sender in self._read:
            while self._there().check([key := f"{self._name}/{sender}/{self._read[sender]}"]):
                self._read[sender] += 1
                message = json.loads(self._store.get(key))
                self._store.delete_key(key)
                yield message

    def ask_to_stop(self) -> None:
        if self._store is not None:
            self._there().set(f"{self._name}/stop", "1")

    def stop_asked(self) -> bool:
        """Whether any rank has asked for it."""
        return self._store is not None and self._there().check([f"{self._name}/stop"])
