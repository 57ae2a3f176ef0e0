"""``torch.autograd.grad`` of a recorded loss in a network's parameters, and ``match_loss`` of such gradients."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastdd.compat.dc import matching
from fastdd.compat.deferred.calls import Call
from fastdd.compat.deferred.graph import Deferred, Node, in_order


class Unknown(Exception):
    """A call of ``torch.autograd.grad`` that is left to torch."""


class Gradients(Node):
    """Gradients of a recorded loss in all parameters of the one network that it depends on; several tensors.

    Attributes:
        loss: what they are of.
        call: the network's call that it depends on.
        create_graph: whether they are differentiable.
    """

    def __init__(self, loss: Node, call: Call, create_graph: bool):
        super().__init__(torch.autograd.grad, (loss,), {}, None, loss.device)
        self.loss, self.call, self.create_graph = loss, call, create_graph

    def run(self, value_of: Callable[[Node], Any]) -> tuple[Tensor, ...]:
        # The graph may serve other gradients; it goes with the values that hold it.
        loss = value_of(self.loss)
        return torch.autograd.grad(loss, self.call.parameters, create_graph=self.create_graph, retain_graph=True)

    def settle(self, value: Any) -> None:
        super().settle(value)
        self.loss = self.call = None


def _item(gradients: tuple[Tensor, ...], number: int) -> Tensor:
    return gradients[number]


class Item(Node):
    """One of several gradients."""

    def __init__(self, source: Gradients, index: int, meta: Tensor):
        super().__init__(_item, (source, index), {}, meta, source.device)
        self.source, self.index = source, index

    def settle(self, value: Any) -> None:
        super().settle(value)
        self.source = None


def record(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    **others: Any,
) -> tuple[Deferred, ...]:
    """Deferred gradients of one recorded loss in all parameters of a network, as torch returns them.

    Raises:
        Unknown: any other call.
    """
    loss = outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs
    if (
        type(loss) is not Deferred
        or loss.node.value is not None
        or loss.node.meta.ndim
        or not isinstance(inputs, list | tuple)
    ):
        raise Unknown
    if (
        grad_outputs is not None
        or any(others.values())
        or not torch.is_grad_enabled()
        or not loss.node.meta.requires_grad
    ):
        raise Unknown
    calls = {node for node in in_order(loss.node) if isinstance(node, Call)}
    networks = {(id(call.net), id(call.weights)) for call in calls}
    if len(networks) != 1:
        raise Unknown
    call = min(calls, key=lambda node: node.number)
    if not call.all_weights_used or not call.weights.are(inputs) or not all(p.requires_grad for p in inputs):
        raise Unknown
    source = Gradients(loss.node, call, create_graph)
    metas = [torch.empty(p.shape, dtype=p.dtype, device="meta", requires_grad=create_graph) for p in inputs]
    return tuple(Deferred(Item(source, k, meta)) for k, meta in enumerate(metas))


class Match(Node):
    """``match_loss`` of recorded gradients."""

    def __init__(self, synthetic: list, real: list, metric: str, meta: Tensor, device: torch.device):
        if metric == "ours":  # which reads no others
            pairs = [(s, r) for s, r in zip(synthetic, real, strict=True) if len(_shape(s)) > 1]
            synthetic, real = ([pair[k] for pair in pairs] for k in (0, 1))
        super().__init__(matching.match_loss, (synthetic, real), {}, meta, device)
        self.synthetic, self.real, self.metric = synthetic, real, metric

    def run(self, value_of: Callable[[Node], Any]) -> Tensor:
        synthetic, real = (
            [value_of(leaf) if isinstance(leaf, Node) else leaf for leaf in of_side]
            for of_side in (self.synthetic, self.real)
        )
        return matching.match_loss(synthetic, real, Namespace(dis_metric=self.metric, device=self.device))

    def settle(self, value: Any) -> None:
        super().settle(value)
        self.synthetic = self.real = []


def _shape(leaf: Node | Tensor) -> torch.Size:
    return leaf.meta.shape if isinstance(leaf, Node) else leaf.shape


def alike(synthetic: list, real: list) -> bool:
    """Whether both sides are tensors of the same shapes."""
    sides = zip(synthetic, real, strict=True)
    return all(isinstance(leaf, Node | Tensor) for leaf in (*synthetic, *real)) and all(
        _shape(s) == _shape(r) for s, r in sides
    )
