"""Computing what a recorded result takes: together where that wins, and both ways at first."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from fastdd.compat.deferred import fusion, sites
from fastdd.compat.deferred.calls import Call
from fastdd.compat.deferred.gradients import Gradients
from fastdd.compat.deferred.graph import Node, in_order, live_nodes

# Largest differences, relative, of results and of their gradients in the images.
_VALUES, _GRADIENTS = 1e-4, 1e-3


def evaluate(root: Node) -> None:
    """Give ``root``, and what the script holds of that on the way to it, their values."""
    _evaluate(root)
    while (node := next((n for n in live_nodes() if n.value is None and _goes_back(n)), None)) is not None:
        _evaluate(node)


def _evaluate(root: Node) -> None:
    plan = fusion.plan(root)
    plain = fusion.Plan(root)
    calls = [node for node in plain.order() if isinstance(node, Call)]
    places = {call.site for call in calls}
    if not plan.fused:
        values = _run(plain)
    elif any(site.checks < sites.CHECKS for site in places):
        values = _both_ways(plan, plain, calls)
        for site in places:
            site.checks += 1
    else:
        values = _run(plan)
    together = {node.site for fused in {*plan.fused.values()} for node in _calls_of(fused)}
    sites.evaluated(places, together)
    for node, value in values.items():
        node.settle(value)


def _held() -> set[Node]:
    """What the script holds, and backward passes that it may yet ask for more of."""
    live = live_nodes()
    pending = (step for node in live if node.value is None for step in in_order(node))
    return live | {step for step in pending if isinstance(step, Gradients)}


def _goes_back(node: Node) -> bool:
    """Whether it takes a backward pass through a graph that is there: what the graph holds may change."""
    backward = (step for step in in_order(node) if isinstance(step, Gradients))
    return any(need.value is not None for step in backward for inner in in_order(step) for need in inner.needs())


def _calls_of(fused: fusion.Fused) -> list[Call]:
    return [node for node in fused.members if isinstance(node, Call)] or [fused.call]


def _run(plan: fusion.Plan, keep: bool = True) -> dict[Node, Any]:
    """Values of the root and of what the script holds; of others only as long as something needs them."""
    order = plan.order()
    users = Counter(need for node in order for need in {*plan.needs(node)})
    kept = {plan.root, *(_held() if keep else ())}
    values: dict[Node, Any] = {}

    def value_of(node: Node) -> Any:
        return values[node] if node.value is None else node.value

    for node in order:
        if node not in values:
            with torch.set_grad_enabled(node.grad):
                fused = plan.fused.get(node)
                values.update({node: node.run(value_of)} if fused is None else fused.run(value_of))
        for need in {*plan.needs(node)}:
            users[need] -= 1
            if not users[need] and need not in kept:
                values.pop(need, None)
    return {node: value for node, value in values.items() if node in kept}


def _both_ways(plan: fusion.Plan, plain: fusion.Plan, calls: list[Call]) -> dict[Node, Any]:
    """The script's own values; where those computed together differ, nothing is recorded any more."""
    values = _run(plain)
    theirs = values[plain.root]
    images = [call.images for call in calls if call.images.requires_grad]
    try:
        mine = _run(plan, keep=False)[plan.root]
        difference = _difference(theirs, mine, images)
    except Exception as error:
        difference = f"{type(error).__name__}: {error}"
    if isinstance(difference, str):
        sites.turn_off(difference)
    else:
        sites.agreed(difference)
    return values


def _difference(theirs: Tensor, mine: Tensor, images: list[Tensor]) -> str | float:
    """The largest relative difference; in words, if it is too large."""
    largest = 0.0
    pairs = [("the result", _VALUES, theirs, mine)]
    if theirs.requires_grad != mine.requires_grad:
        return "one of the results has no gradient"
    if theirs.requires_grad and images:
        found = [
            torch.autograd.grad(x.sum(), images, retain_graph=True, allow_unused=True, materialize_grads=True)
            for x in (theirs, mine)
        ]
        pairs += [("its gradient in the images", _GRADIENTS, a, b) for a, b in zip(*found, strict=True)]
    for what, tolerance, a, b in pairs:
        if not a.numel():
            continue
        size = (a - b).detach().abs().max() / a.detach().abs().max().clamp_min(torch.finfo(a.dtype).tiny)
        if not size <= tolerance and not (a.isnan() & b.isnan()).all():
            return f"{what} differs by {size:.2g}, relative (allowed {tolerance:g})"
        largest = max(largest, float(size.nan_to_num()))
    return largest
