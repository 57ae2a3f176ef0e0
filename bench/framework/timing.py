"""Microseconds of several functions, in turns: whatever slows the machine down for a while slows all of them."""

import time
from collections.abc import Callable, Mapping

import torch

WARM_UP = 2
MOST_ROUNDS = 1000
# Seconds. What takes longer by itself is timed by its first call alone: what warms up is less than its spread.
LONG = 10.0
# Written before every timed call on a GPU, so that none finds its inputs in the L2 cache: larger than any.
_FLUSHED_BYTES = 256 << 20


class Stopwatch:
    """Times one call: on a GPU by events, from a cold L2 cache; on a CPU by the clock."""

    def __init__(self, device: torch.device):
        self._device = device
        if device.type == "cuda":
            self._flush = torch.empty(_FLUSHED_BYTES, dtype=torch.int8, device=device)

    def __call__(self, function: Callable[[], object]) -> float:
        """Microseconds of a call."""
        if self._device.type != "cuda":
            start = time.perf_counter()
            function()
            return 1e6 * (time.perf_counter() - start)
        with torch.cuda.device(self._device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.zero_()
            start.record()
            function()
            end.record()
            torch.cuda.synchronize()
            return 1e3 * start.elapsed_time(end)


def alternate(
    functions: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    reps: int,
    budget: float,
    limit: float | None = None,
) -> tuple[dict[str, list[float]], dict[str, Exception]]:
    """Times of every call of every function, and what the functions that failed raised.

    A function whose first call takes longer than :data:`LONG`, or its share of ``limit``, is not called again; that
    call is its time.

    Args:
        functions: by name. One that raises is left out from then on.
        device: where they work.
        reps: least number of timed rounds; a round calls every function once, in a rotating order.
        budget: seconds after which no further round starts once there are ``reps``.
        limit: seconds that all of it may take, but for one call of each; with it every function has one at least.
    """
    stopwatch = Stopwatch(device)
    times: dict[str, list[float]] = {name: [] for name in functions}
    failures: dict[str, Exception] = {}
    long: set[str] = set()
    longest = LONG if limit is None else min(LONG, limit / max(1, len(functions)))
    began = time.perf_counter()
    for number in range(WARM_UP + MOST_ROUNDS):
        if number >= WARM_UP + reps and time.perf_counter() - began >= budget:
            break
        running = [name for name in functions if name not in failures and name not in long]
        for i in range(len(running)):
            name = running[(i + number) % len(running)]
            try:
                spent = stopwatch(functions[name])
            except Exception as error:
                failures[name] = error
                continue
            if number == 0 and spent > 1e6 * longest:
                long.add(name)
            if number >= WARM_UP or name in long:
                times[name].append(spent)
        if number == 0 and limit is not None:  # what takes long has had its call, and does not cost the others theirs
            began = time.perf_counter()
    return times, failures
