"""Gradient matching (DC; DSA with augmentation): distances of the network's gradients, layer by layer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.bench.oracles.segments import augment, by_class, class_loss
from fastdd.debias import Segments

_EPS = 1e-6  # as published


def match(synthetic: Sequence[Tensor], real: Sequence[Tensor], metric: str) -> Tensor:
    """Distance of two lists of gradients, one a parameter: ``ours``, ``mse`` or ``cos``, as published."""
    if metric == "ours":
        return sum(row_distance(s, r) for s, r in zip(synthetic, real, strict=True))
    s, r = (torch.cat([gradient.reshape(-1) for gradient in side]) for side in (synthetic, real))
    if metric == "mse":
        return (s - r).square().sum()
    return 1 - (s * r).sum() / (s.norm() * r.norm() + _EPS)


def row_distance(s: Tensor, r: Tensor) -> Tensor:
    """The sum over rows (output channels, channels of a layer norm) of 1 - cosine; nothing for one dimension."""
    if r.dim() == 1:
        return r.new_zeros(())
    s, r = s.flatten(1), r.flatten(1)
    return (1 - (s * r).sum(1) / (s.norm(dim=1) * r.norm(dim=1) + _EPS)).sum()


def loss(
    net: nn.Module,
    real: Tensor,
    segments: Segments,
    synthetic: Tensor,
    params: Sequence[Any],
    *,
    metric: str = "ours",
    augmented: Callable[[Tensor, Any], Tensor] = augment,
) -> Tensor:
    """The loss of one matching step.

    Args:
        net: logits of images, each independent of the others (batch norms in evaluation mode); its parameters must
            require a gradient.
        metric: ``ours``, ``mse`` or ``cos``.
        real, segments, synthetic, params, augmented: as those of :func:`fastdd.bench.oracles.dm.loss`.

    Returns:
        Scalar: the sum over classes of the (weighted) distances of their segments, or of the largest of them.
    """
    parameters = [*net.parameters()]

    def cross_entropies(images: Tensor, label: int) -> Tensor:
        return F.cross_entropy(net(images), torch.full((len(images),), label, device=images.device), reduction="none")

    total = synthetic.new_zeros(())
    classes = by_class(segments, len(params), synthetic.dtype)
    per_class = zip(classes, synthetic.chunk(len(classes)), params, strict=True)
    for label, (of_class, images, row) in enumerate(per_class):
        if not of_class:
            continue
        mean = cross_entropies(augmented(images, row), label).mean()
        matched = torch.autograd.grad(mean, parameters, create_graph=True)
        distances = []
        for part in of_class:
            weighted = (part.weights * cross_entropies(augmented(real[part.rows], row), label)).sum()
            distances.append(match(matched, torch.autograd.grad(weighted, parameters), metric))
        total = total + class_loss(of_class, distances, bool(segments.worst))
    return total
