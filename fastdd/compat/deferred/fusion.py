"""Which recorded operations can be computed together, and how."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import models, ops
from fastdd.compat.deferred.calls import Call
from fastdd.compat.deferred.gradients import Gradients, Item, Match
from fastdd.compat.deferred.graph import Node, in_order

# Images that fill a CPU's pass: calls with as many win nothing by going together.
_ENOUGH_ON_CPUS = 8
# Rows of all groups over those of the batch: more are no groups, and a pass each is no dearer.
_MOST_OVERLAP = 1.5
_PLAIN_CROSS_ENTROPY = {"weight": None, "size_average": None, "ignore_index": -100, "reduce": None, "reduction": "mean"}
_Values = Callable[[Node], Any]


class Joined:
    """Calls of one network whose images go through it together."""

    def __init__(self, calls: list[Call]):
        self.members: list[Node] = [*calls]
        self._calls = calls

    def needs(self, member: Node) -> list[Node]:
        return []

    def run(self, value_of: _Values) -> dict[Node, Any]:
        first = self._calls[0]
        with torch.set_grad_enabled(first.grad):
            outputs, parameters = first.weights.call(first.function, torch.cat([call.images for call in self._calls]))
            parts = outputs.split([len(call.images) for call in self._calls])
        for call in self._calls:
            call.parameters = parameters
        return dict(zip(self._calls, parts, strict=True))


@dataclass(frozen=True)
class _Group:
    """Some images of a network's call whose mean cross-entropy a gradient is of."""

    call: Call
    mask: Tensor | None
    labels: Tensor

    def rows(self) -> Tensor:
        if self.mask is None:
            return torch.arange(len(self.call.images), device=self.call.device)
        return self.mask.nonzero()[:, 0]


def _group(gradients: Gradients) -> _Group | None:
    """What a gradient is of, where it is a plain mean cross-entropy of (some of) a call's outputs."""
    loss = gradients.loss
    if gradients.create_graph or loss is None or loss.function is not F.cross_entropy or loss.value is not None:
        return None
    others = {name: value for name, value in loss.kwargs.items() if name != "label_smoothing"}
    if loss.kwargs.get("label_smoothing", 0.0) or any(_PLAIN_CROSS_ENTROPY[k] != v for k, v in others.items()):
        return None
    logits, labels = loss.args
    mask = None
    if logits.function == Tensor.__getitem__ and logits.value is None:
        logits, mask = logits.args
    if not isinstance(logits, Call) or logits.value is not None or labels.requires_grad:
        return None
    if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool):
        return None
    return _Group(logits, mask, labels)


def _gradients_of(groups: list[_Group], parameters: str) -> list[Tensor]:
    """Of every parameter [groups, *shape], from one pass over the images of one call."""
    call, rows = groups[0].call, [group.rows() for group in groups]
    lengths = torch.tensor([0, *map(len, rows)], device=call.device)
    return [
        *ops.group_grad(
            call.net,
            call.images.detach()[torch.cat(rows)],
            torch.cat([group.labels for group in groups]),
            lengths.cumsum(0),
            parameters=parameters,
        ).values()
    ]


def _worth_it(groups: list[_Group]) -> bool:
    sizes = [len(group.labels) for group in groups]
    call = groups[0].call
    return len(groups) > 1 and min(sizes) > 0 and sum(sizes) <= _MOST_OVERLAP * len(call.images) and call.weights.hold()


class GroupGradients:
    """Gradients of several groups of one batch."""

    def __init__(self, members: list[Gradients], groups: list[_Group]):
        self.members: list[Node] = [*members]
        self._groups, self.call = groups, groups[0].call

    def needs(self, member: Node) -> list[Node]:
        return []

    def run(self, value_of: _Values) -> dict[Node, Any]:
        found = _gradients_of(self._groups, "all")
        return {member: tuple(g[k] for g in found) for k, member in enumerate(self.members)}


class GroupMatches:
    """Distances of several groups of one batch to the same synthetic gradients."""

    def __init__(self, members: list[Match], groups: list[_Group], indices: tuple[int, ...]):
        self.members: list[Node] = [*members]
        self._groups, self._indices, self.call = groups, indices, groups[0].call

    def needs(self, member: Node) -> list[Node]:
        return [leaf for leaf in self.members[0].synthetic if isinstance(leaf, Node)]

    def run(self, value_of: _Values) -> dict[Node, Any]:
        first = self.members[0]
        synthetic = [value_of(leaf) if isinstance(leaf, Node) else leaf for leaf in first.synthetic]
        real = _gradients_of(self._groups, "all")
        real = [real[k] for k in self._indices]
        if first.metric != "ours":  # which sum over all parameters: one vector
            synthetic = [torch.cat([s.reshape(-1) for s in synthetic])]
            real = [torch.cat([r.flatten(1) for r in real], 1)]
        classes = torch.zeros(len(self.members), dtype=torch.int64, device=first.device)
        with torch.set_grad_enabled(first.grad):
            distances = ops.gradient_match(real, [s[None] for s in synthetic], classes, metric=first.metric)
            return dict(zip(self.members, distances.unbind(), strict=True))


Fused = Joined | GroupGradients | GroupMatches


@dataclass
class Plan:
    """What to compute for a result, in the script's order, and what of it together."""

    root: Node
    fused: dict[Node, Fused] = field(default_factory=dict)

    def needs(self, node: Node) -> list[Node]:
        return self.fused[node].needs(node) if node in self.fused else node.needs()

    def order(self) -> list[Node]:
        return in_order(self.root, self.needs)

    def add(self, fused: Fused) -> None:
        self.fused.update(dict.fromkeys(fused.members, fused))


def plan(root: Node) -> Plan:
    """The best way to ``root``."""
    made = Plan(root)
    for matches in _matches(made.order()):
        made.add(matches)
    for gradients in _group_gradients(made.order()):
        made.add(gradients)
    for calls in _joined(made.order()):
        made.add(calls)
    return made


def _item(leaf: Any) -> Item | None:
    """The gradient that a recorded detached copy is of."""
    while isinstance(leaf, Node) and leaf.value is None and leaf.function in (Tensor.detach, Tensor.clone):
        leaf = leaf.args[0]
    return leaf if isinstance(leaf, Item) and leaf.value is None and leaf.source.value is None else None


def _matches(nodes: list[Node]) -> Iterator[GroupMatches]:
    candidates: dict[Any, list[tuple[Match, _Group]]] = {}
    for match in nodes:
        if not isinstance(match, Match) or not match.real:
            continue
        items = [_item(leaf) for leaf in match.real]
        if None in items or len({item.source for item in items}) != 1:
            continue
        group = _group(items[0].source)
        if group is not None:
            indices = tuple(item.index for item in items)
            key = tuple(map(id, match.synthetic)), indices, group.call, match.metric, match.grad
            candidates.setdefault(key, []).append((match, group))
    for key, found in candidates.items():
        members, groups = ([pair[k] for pair in found] for k in (0, 1))
        if _worth_it(groups):
            yield GroupMatches(members, groups, key[1])


def _group_gradients(nodes: list[Node]) -> Iterator[GroupGradients]:
    candidates: dict[Call, list[tuple[Gradients, _Group]]] = {}
    for node in nodes:
        if isinstance(node, Gradients) and (group := _group(node)) is not None:
            candidates.setdefault(group.call, []).append((node, group))
    for found in candidates.values():
        members, groups = ([pair[k] for pair in found] for k in (0, 1))
        if _worth_it(groups):
            yield GroupGradients(members, groups)


def _joined(nodes: list[Node]) -> Iterator[Joined]:
    """Calls whose results are not differentiated class by class, as many as the network takes at once."""
    alone = {call for node in nodes if isinstance(node, Gradients) for call in in_order(node.loss)}
    candidates: dict[Any, list[Call]] = {}
    for node in nodes:
        if isinstance(node, Call) and node not in alone:
            key = node.weights, node.function, node.grad, node.meta.requires_grad, node.images.shape[1:]
            candidates.setdefault(key, []).append(node)
    for calls in candidates.values():
        if calls[0].device.type == "cpu" and min(len(call.images) for call in calls) >= _ENOUGH_ON_CPUS:
            continue
        most, at_once = models.chunk_size(calls[0].net, calls[0].images), []
        for call in [*calls, None]:
            if call is None or sum(len(c.images) for c in [*at_once, call]) > most:
                if len(at_once) > 1:
                    yield Joined(at_once)
                at_once = []
            if call is not None:
                at_once.append(call)
