"""Gradients per segment by passes over few samples: of a segment, a part of a long one, or several short ones."""

import functools
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fastdd.ops.by_segment import BySegment, NotBySegment
from fastdd.ops.conv3x3 import runs_as_conv3x3
from fastdd.ops.gradient_job import Job, cross_entropy
from fastdd.reference.segment_mean import accumulation_dtype


def slices(job: Job) -> list[Tensor]:
    """A forward and a backward a segment, or a chunk of a long one; short segments together, where the layers can."""
    leaves = [*job.leaves.values()]
    totals: list[Sequence[Tensor]] = [()] * (len(job.offsets) - 1)
    pieces = [
        (segment, low, min(low + job.chunk, end))
        for segment, (start, end) in enumerate(pairwise(job.offsets.tolist()))
        for low in range(start, end, job.chunk)
    ]
    layers = _layers_by_segment(job)
    while pieces:
        ends = _ends_at_once(pieces, job.chunk) if layers else [*pieces[0][1:]]
        try:
            found = _by_segment(job, layers, ends) if len(ends) > 2 else [_of_piece(job, leaves, slice(*ends))]
        except NotBySegment:
            layers = {}
            continue
        for grads in found:
            segment, *_ = pieces.pop(0)
            grads = [grad.to(accumulation_dtype(grad.dtype)) for grad in grads]
            sums = totals[segment]
            totals[segment] = [total + grad for total, grad in zip(sums, grads, strict=True)] if sums else grads
    columns: list[list[Tensor]] = [[] for _ in leaves]
    while totals:
        sums = totals.pop(0)
        for column, leaf, total in zip(columns, leaves, sums or [None] * len(leaves), strict=True):
            column.append(torch.zeros_like(leaf, dtype=accumulation_dtype(leaf.dtype)) if total is None else total)
    # One at a time, so that no more than one parameter is held twice.
    return [torch.stack(columns.pop(0)) for _ in leaves]


def _of_piece(job: Job, leaves: list[Tensor], part: slice) -> Sequence[Tensor]:
    return torch.autograd.grad(job.value(part), leaves, create_graph=job.create_graph, materialize_grads=True)


def _ends_at_once(pieces: list[tuple[int, int, int]], most: int) -> list[int]:
    """Ends of the first pieces that have no more than so many samples together, or of the first."""
    ends = [*pieces[0][1:]]
    for _, _, end in pieces[1:]:
        if end - ends[0] > most:
            break
        ends.append(end)
    return ends


def _layers_by_segment(job: Job) -> dict[nn.Module, str]:
    """The convolutions and linear layers that give gradients per segment, with their weights' names, "" where nobody
    asks for it; none where other layers have what is asked for, where the gradients are to be differentiated, with a
    loss of the caller's, which may look at a batch as a whole, and off CPUs, where a pass costs its arithmetic."""
    if job.create_graph or job.loss is not cross_entropy or job.images.device.type != "cpu":
        return {}
    names, layers = {id(leaf): name for name, leaf in job.leaves.items()}, {}
    for layer in job.net.modules():
        if runs_as_conv3x3(layer) or type(layer) is nn.Linear:
            if layer._forward_hooks or "forward" in layer.__dict__:
                return {}
            layers[layer] = names.get(id(layer.weight), "")
    return layers if sorted(filter(None, layers.values())) == sorted(job.leaves) else {}


def _by_segment(job: Job, layers: dict[nn.Module, str], ends: list[int]) -> list[Sequence[Tensor]]:
    """Gradients of every piece, in one pass.

    Raises:
        NotBySegment: a layer is not called on the samples of the batch, or a parameter is used outside of its layer.
    """
    count, part = len(ends) - 1, slice(ends[0], ends[-1])
    leaves = {name: [leaf.detach().requires_grad_() for _ in range(count)] for name, leaf in job.leaves.items()}
    own = [end - part.start for end in ends]
    handles = []
    try:
        for layer, name in layers.items():
            by_segment = BySegment(own, layer.weight.detach(), leaves.get(name, []))
            if type(layer) is nn.Linear:
                handles.append(layer.register_forward_hook(functools.partial(_linear_by_segment, by_segment)))
            else:
                layer.by_segment = by_segment
        value = job.value(part)
    finally:
        for layer in layers:
            layer.__dict__.pop("by_segment", None)
        for handle in handles:
            handle.remove()
    # Gradients that do not come through the layers would arrive at the network's own parameters.
    asked = [*job.leaves.values(), *(leaf for of_name in leaves.values() for leaf in of_name)]
    grads = torch.autograd.grad(value, asked, allow_unused=True)
    if any(grad is not None for grad in grads[: len(leaves)]):
        raise NotBySegment
    pairs = zip(asked[len(leaves) :], grads[len(leaves) :], strict=True)
    found = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in pairs]
    return [found[k::count] for k in range(count)]


def _linear_by_segment(by_segment: BySegment, layer: nn.Linear, args: tuple, _: Tensor) -> Tensor:
    if not args:
        raise NotBySegment
    return by_segment.linear(args[0], layer.bias)
