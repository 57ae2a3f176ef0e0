"""CUDA graphs of a GPU that is not there (:mod:`pretend_gpu`).

A capture writes down every operation with the tensors that it had, and what the host gave it. It does them too, as
PyTorch has to know what comes out, but what was there before has its values back after it. A replay does what is
written, on the same tensors: nothing of Python's, with the numbers of then.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Tape:
    """What was done in a capture."""

    def __init__(self) -> None:
        self._done: list[tuple[Callable, tuple, dict, list[tuple[int, Tensor]]]] = []
        self._known: set[int] = set()
        self._before: list[tuple[Tensor, torch.UntypedStorage]] = []

    def do(self, function: Callable, args: tuple, kwargs: dict, mine: Callable[[Tensor], bool]) -> Any:
        """Do an operation on numbers, and write it down; ``mine``: of tensors on the GPU, which stay where they are."""
        # What the host gives is as it is now.
        args, kwargs = tree_map_only(Tensor, lambda t: t if mine(t) else t.clone(), (args, kwargs))
        given = _tensors((args, kwargs))
        for tensor in given:
            if _address(tensor) not in self._known:
                self._before.append((tensor, tensor.untyped_storage().clone()))
        self._known |= {*map(_address, given)}
        result = function(*args, **kwargs)
        addresses = {*map(_address, given)}
        fresh = [(place, t) for place, t in enumerate(_tensors(result)) if _address(t) not in addresses]
        self._known |= {_address(tensor) for _, tensor in fresh}
        self._done.append((function, args, kwargs, fresh))
        return result

    def give_back(self) -> None:
        """What was there before the capture, with its values."""
        for tensor, values in self._before:
            tensor.untyped_storage().copy_(values)
        self._before.clear()

    def replay(self) -> None:
        for function, args, kwargs, fresh in self._done:
            result = _tensors(function(*args, **kwargs))
            for place, tensor in fresh:
                tensor.copy_(result[place])


tapes: list[Tape] = []  # those that are being written


def refuse(what: str) -> None:
    """What a capture does not allow."""
    if tapes:
        raise RuntimeError(f"operation not permitted when stream is capturing: {what}")


class Graph:
    """``torch.cuda.CUDAGraph``."""

    noted: Callable[[], None]  # a replay
    tape: Tape | None = None

    def replay(self) -> None:
        refuse("a replay")
        self.noted()
        with _disable_current_modes(), torch.no_grad():
            self.tape.replay()


@contextlib.contextmanager
def capture(graph: Graph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"):
    """``torch.cuda.graph``."""
    refuse("a capture")
    tape = Tape()
    tapes.append(tape)
    try:
        yield
        graph.tape = tape
    finally:
        tapes.remove(tape)
        with _disable_current_modes():
            tape.give_back()


class Stream:
    """``torch.cuda.Stream``: work is done at once, whichever it is on."""

    def __init__(self, device: Any = None):
        pass

    def wait_stream(self, other: "Stream") -> None:
        pass


def parts(noted: Callable[[], None]) -> list[tuple[Any, str, Any]]:
    """What stands in for what of PyTorch's; ``noted`` is called at every replay."""
    graph = type("CUDAGraph", (Graph,), {"noted": staticmethod(noted)})
    cuda = torch.cuda
    return [
        (cuda, "CUDAGraph", graph),
        (cuda, "graph", capture),
        (cuda, "graph_pool_handle", lambda: (0, 1)),
        (cuda, "is_current_stream_capturing", lambda: bool(tapes)),
        (cuda, "Stream", Stream),
        (cuda, "current_stream", Stream),
        (cuda, "stream", lambda stream: contextlib.nullcontext()),
        (Tensor, "pin_memory", lambda tensor, device=None: tensor),
    ]
