"""Work that is done again and again, a step or an epoch, as CUDA graphs: one launch in place of hundreds.

A graph does on a GPU what was launched while it was captured: the same kernels, on the same memory, with the numbers
that the host gave them then. What changes from one time to the next must therefore lie on the device. Two things do:
**keys** (:mod:`fastdd.core.rng`), which a table has for the units of work to come (:class:`KeyTable`), and what a unit
works on, which stays where it is. What the host decides is a unit's **phase**: units of one phase are the same work.
Beside keys the table has what else a unit's number says, such as which of the stored networks is its own.

:class:`Graphs` puts it together. On CPUs, and with ``FASTDD_CUDA_GRAPHS=0``, it calls the work as it is, with keys that
are numbers of the host's.
"""

import os
import struct
import warnings
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor

# By name: numbers of the host's, or scalars on the device, int64 or float64.
HostKeys = Mapping[str, int | float]
Keys = Mapping[str, int | float | Tensor]
Outputs = Tensor | tuple[Tensor | None, ...] | None

# Units whose keys are sent at a time.
_ROWS = 256
# Calls of a phase before it is captured: kernels are compiled and loaded, and constants made, in these.
_WARM_UP = 3
_SWITCH = "FASTDD_CUDA_GRAPHS"


def enabled(device: torch.device) -> bool:
    """Whether work on a device is to be graphs: on GPUs, unless the environment has FASTDD_CUDA_GRAPHS=0."""
    return device.type == "cuda" and os.environ.get(_SWITCH) != "0"


def settling(device: torch.device) -> int:
    """Calls of a phase until the next ones take as long as all to come."""
    return _WARM_UP + 1 if enabled(device) else 1


class KeyTable:
    """The keys of the next units of work, on a device, where a counter says which is next.

    :meth:`seek` is the host's: it sends keys where the table has none of a unit, page-locked and without waiting, and
    moves the counter where a unit does not follow the last. :meth:`take` is the device's, in two kernels, whatever the
    unit: it can be part of a graph.

    Args:
        keys: of a unit, by name: the same names in the same order for every unit; integers, and floating-point numbers,
            which are kept to the last bit.
        device: where the table is.
        rows: units that it has keys of at a time.

    >>> table = KeyTable(lambda number: {"net": 10 * number, "batch": -number}, "cpu")
    >>> table.seek(3)
    >>> table.take(), table.take()["net"]
    ({'net': tensor(30), 'batch': tensor(-3)}, tensor(40))
    """

    def __init__(self, keys: Callable[[int], HostKeys], device: torch.device | str, rows: int = _ROWS):
        self._keys, self._device, self._count = keys, torch.device(device), rows
        self._kinds: dict[str, type] | None = None  # int or float
        self._first = self._next = 0

    def seek(self, number: int) -> None:
        """Let unit ``number`` be the next."""
        if self._kinds is None or not self._first <= number < self._first + self._count:
            self._send(number)
        elif number != self._next:
            self._counter.fill_(number - self._first)
        self._next = number + 1

    def take(self) -> dict[str, Tensor]:
        """The next unit's keys, scalars on the device; the one after it is next then."""
        row = self._table.index_select(0, self._counter)[0]
        self._counter.add_(1)
        return {
            name: value.view(torch.float64) if kind is float else value
            for (name, kind), value in zip(self._kinds.items(), row.unbind(), strict=True)
        }

    def _send(self, first: int) -> None:
        rows = [self._keys(number) for number in range(first, first + self._count)]
        values = torch.tensor([[*map(_bits, row.values())] for row in rows], dtype=torch.int64)
        if self._kinds is None:
            self._kinds = {name: type(value) for name, value in rows[0].items()}
            self._table = torch.zeros(values.shape, dtype=torch.int64, device=self._device)
            self._counter = torch.zeros(1, dtype=torch.int64, device=self._device)
        if self._device.type == "cuda":
            values = values.pin_memory()
        self._table.copy_(values, non_blocking=True)
        self._counter.zero_()
        self._first = first


def _bits(value: int | float) -> int:
    return struct.unpack("<q", struct.pack("<d", value))[0] if isinstance(value, float) else value


class Pool:
    """The memory that the graphs of a run share, and the stream that they are captured on.

    They can share it as nothing in it outlives a replay: what comes out of a graph is copied at once.
    """

    def __init__(self) -> None:
        self._handle: tuple[int, int] | None = None
        self._stream: torch.cuda.Stream | None = None

    def aside(self, work: Callable[[], Outputs], device: torch.device) -> Outputs:
        """What ``work`` returns, done on the pool's stream, between what is before and after it on the current one."""
        current = torch.cuda.current_stream(device)
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result

    def capture(self, work: Callable[[], Outputs]) -> "tuple[torch.cuda.CUDAGraph, Outputs]":
        """``work`` as a graph, and where its results will be. Nothing of it is done."""
        graph = torch.cuda.CUDAGraph()
        if self._handle is None:
            self._handle = torch.cuda.graph_pool_handle()
        try:
            # Of this thread: others, of a progress bar say, may do as they like.
            with torch.cuda.graph(graph, self._handle, self._stream, capture_error_mode="thread_local"):
                outputs = work()
        except BaseException:
            self._handle = None  # PyTorch does not take a pool again whose only graph is gone
            raise
        return graph, outputs


class _Graph:
    """The units of one phase."""

    def __init__(self) -> None:
        self.calls = 0
        self.replay: Callable[..., Outputs] | None = None


class Graphs:
    """Units of work, numbered, as CUDA graphs, a graph a phase.

    Units of a phase are called as they are for three times, captured at the next, and replayed from then on. Where the
    capture fails, one warning says why, and units are called as they are from there on.

    What a unit must be, for its phase not to be None:

    - it depends on its number by its phase and its keys alone, and takes keys as numbers or as scalars on the device;
    - it reads and writes tensors that stay where they are, in place (``copy_``, not another tensor under the name);
      what it returns, and nothing else that it makes, is used after it;
    - it leaves nothing on the host, as Python does not run in a replay: no list grows, no counter counts;
    - it waits for nothing on the device and sends nothing to it.

    Args:
        call: ``call(number, keys, *inputs)`` does unit ``number``; returns a tensor, a tuple of tensors and None, or
            None.
        keys: of a unit, by name, the same names for every unit; those of units to come are asked for ahead.
        device: where the work is.
        name: of the work, for people.
        phase: of a unit; None: it can't be a graph, and is called as it is, with keys that are numbers.
        pool: shared by the graphs of a run; None: one of its own.

    >>> add = Graphs(lambda number, keys, x: x + keys["more"], lambda n: {"more": 2 * n}, torch.device("cpu"), "sums")
    >>> add(3, torch.tensor(1))
    tensor(7)
    """

    def __init__(
        self,
        call: Callable[..., Outputs],
        keys: Callable[[int], HostKeys],
        device: torch.device,
        name: str,
        *,
        phase: Callable[[int], Hashable | None] = lambda number: 0,
        pool: Pool | None = None,
    ):
        self._call, self._keys, self._device, self._name = call, keys, device, name
        self._phase, self._pool = phase, pool or Pool()
        self._table = KeyTable(keys, device) if enabled(device) else None
        self._captures = self._table is not None and device.type == "cuda"
        self._graphs: dict[Hashable, _Graph] = {}

    def __call__(self, number: int, *inputs: Tensor) -> Outputs:
        """Do unit ``number``.

        Args:
            number: from 0; keys are sent ahead for units that follow one another.
            inputs: what it works on and is another tensor every time, of one shape a phase: copied to where the graph
                reads it.

        Returns:
            What the call returns, in tensors of its own.
        """
        phase = self._phase(number) if self._table is not None else None
        if phase is None:
            return self._call(number, self._keys(number), *inputs)
        self._table.seek(number)
        if not self._captures:
            return self._as_it_is(number, *inputs)
        graph = self._graphs.setdefault(phase, _Graph())
        if graph.replay is None and graph.calls == _WARM_UP:
            self._capture(graph, number, inputs)
        if graph.replay is None:
            graph.calls += 1
            return self._pool.aside(lambda: self._as_it_is(number, *inputs), self._device)
        return graph.replay(*inputs)

    def _as_it_is(self, number: int, *inputs: Tensor) -> Outputs:
        return self._call(number, self._table.take(), *inputs)

    def _capture(self, graph: _Graph, number: int, inputs: tuple[Tensor, ...]) -> None:
        fixed = [given.detach().clone() for given in inputs]
        try:
            captured, outputs = self._pool.capture(lambda: self._as_it_is(number, *fixed))
        except Exception as error:
            self._captures = False
            self._graphs.clear()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(
                f"{self._name} is no CUDA graph, and goes on kernel by kernel: {reason}", RuntimeWarning, stacklevel=4
            )
            return

        def replay(*inputs: Tensor) -> Outputs:
            for place, given in zip(fixed, inputs, strict=True):
                place.copy_(given)
            captured.replay()
            return _copied(outputs)

        graph.replay = replay


def _copied(outputs: Outputs) -> Outputs:
    if isinstance(outputs, tuple):
        return tuple(map(_copied, outputs))
    return None if outputs is None else outputs.clone()
