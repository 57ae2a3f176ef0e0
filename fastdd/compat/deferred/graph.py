"""Recorded operations, and the tensors that stand for their results."""

import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

_numbers = itertools.count()
_lock = threading.RLock()
# Deferred tensors that the script still holds and that have no value yet.
_live: dict[int, weakref.ref] = {}


def leaves(structure: Any) -> Iterator[Any]:
    """What lists, tuples and dictionaries hold, those inside them included."""
    if isinstance(structure, list | tuple):
        for item in structure:
            yield from leaves(item)
    elif isinstance(structure, dict):
        yield from leaves([*structure.values()])
    else:
        yield structure


def mapped(structure: Any, function: Callable[[Any], Any]) -> Any:
    """The same lists, tuples and dictionaries of what ``function`` makes of the leaves."""
    if isinstance(structure, list | tuple):
        items = [mapped(item, function) for item in structure]
        return type(structure)(*items) if hasattr(structure, "_fields") else type(structure)(items)
    if isinstance(structure, dict):
        return {key: mapped(item, function) for key, item in structure.items()}
    return function(structure)


class Node:
    """One operation of the script, and its value once there is one.

    Attributes:
        number: of the operation, in the script's order.
        function: of torch; args, kwargs: with nodes in place of deferred tensors, and copies of ordinary ones.
        grad: whether gradients were enabled.
        meta: a tensor without data, of the result's shape, dtype and requires_grad; None where there are several.
        value: what the operation returned; None before.
        aliased: whether another recorded result shares its memory.
    """

    def __init__(self, function: Callable, args: tuple, kwargs: dict, meta: Tensor | None, device: torch.device):
        self.number = next(_numbers)
        self.function, self.args, self.kwargs = function, args, kwargs
        self.grad = torch.is_grad_enabled()
        self.meta, self.device = meta, device
        self.value: Any = None
        self.aliased = False

    def needs(self) -> list["Node"]:
        """Operations whose results it takes."""
        return [leaf for leaf in leaves((self.args, self.kwargs)) if isinstance(leaf, Node)]

    def run(self, value_of: Callable[["Node"], Any]) -> Any:
        """Do it as the script would have."""
        args, kwargs = mapped((self.args, self.kwargs), lambda leaf: value_of(leaf) if isinstance(leaf, Node) else leaf)
        return self.function(*args, **kwargs)

    def settle(self, value: Any) -> None:
        """Take a value, and let go of what it came from."""
        self.value = value
        self.args, self.kwargs = (), {}


def in_order(root: Node, needs: Callable[[Node], list[Node]] = Node.needs) -> list[Node]:
    """What has to be done for ``root``, in the script's order."""
    found, waiting = {root}, [root]
    while waiting:
        for node in needs(waiting.pop()):
            if node.value is None and node not in found:
                found.add(node)
                waiting.append(node)
    return sorted(found, key=lambda node: node.number)


class Deferred(Tensor):
    """Stands for the result of a node. In no state does it have data of its own."""

    node: Node

    @staticmethod
    def __new__(cls, node: Node):
        meta = node.meta
        made = Tensor._make_wrapper_subclass(cls, meta.shape, dtype=meta.dtype, device=node.device)
        made.node = node
        key = id(made)
        _live[key] = weakref.ref(made, lambda _: _live.pop(key, None))
        return made

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        from fastdd.compat.deferred import vocabulary

        with _lock:
            return vocabulary.answer(function, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        """What reaches an operator without having been asked for as a function of torch: autograd did not see it."""
        args, kwargs = plain((args, kwargs or {}))
        if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in leaves((args, kwargs))):
            raise RuntimeError(
                f"{function} was given a deferred result past torch's functions: run the script with --no-defer"
            )
        return function(*args, **kwargs)


def settled(node: Node) -> Any:
    """Its value, which is computed now if it has none."""
    from fastdd.compat.deferred import evaluation

    with _lock:
        if node.value is None:
            evaluation.evaluate(node)
        return node.value


def tensor_of(deferred: Deferred) -> Tensor:
    """The ordinary tensor that it stands for."""
    return settled(deferred.node)


def plain(structure: Any) -> Any:
    """Ordinary tensors in place of deferred ones."""
    return mapped(structure, lambda leaf: tensor_of(leaf) if isinstance(leaf, Deferred) else leaf)


def live_nodes() -> set[Node]:
    """Those whose deferred tensors the script holds."""
    return {deferred.node for reference in [*_live.values()] if (deferred := reference()) is not None}


def settle_all() -> None:
    """Compute all that is pending: something may get hold of memory that it depends on."""
    for node in sorted(live_nodes(), key=lambda node: -node.number):
        if node.value is None:
            settled(node)
