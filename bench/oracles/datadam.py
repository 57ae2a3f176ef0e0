"""Attention matching (DataDAM): squared distances of mean attention maps, by layer, beside those of embeddings."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastdd.bench.oracles.segments import augment, by_class, class_loss
from fastdd.debias import Segments

FACTOR = 100  # as published


def attention(features: Tensor, power: float) -> Tensor:
    """Spatial attention of feature maps [n, channels, h, w], [n, h w]: of length 1, or 0 where nothing is active."""
    energy = features.abs().pow(power).sum(1).flatten(1)
    return energy / energy.norm(dim=1, keepdim=True).clamp(min=1e-12)


def loss(
    net: nn.Module,
    real: Tensor,
    segments: Segments,
    synthetic: Tensor,
    params: Sequence[Any],
    *,
    power: float = 1.0,
    task_balance: float = 0.01,
    augmented: Callable[[Tensor, Any], Tensor] = augment,
) -> Tensor:
    """DataDAM's loss of one step.

    Args:
        net: a network with ``stages``, whose last map has no attention, as published.
        power: of the features.
        task_balance: weight of the embeddings' distance.
        real, segments, synthetic, params, augmented: as those of :func:`fastdd.bench.oracles.dm.loss`.

    Returns:
        Scalar: the sum over classes of the (weighted) distances of their segments, or of the largest of them.
    """

    def signals(images: Tensor) -> list[Tensor]:
        maps, embedding = net.stages(images)
        return [*(attention(features, power) for features in maps[:-1]), embedding]

    total = synthetic.new_zeros(())
    classes = by_class(segments, len(params), synthetic.dtype)
    for of_class, images, row in zip(classes, synthetic.chunk(len(classes)), params, strict=True):
        if not of_class:
            continue
        with torch.no_grad():
            of_real = signals(augmented(real[torch.cat([part.rows for part in of_class])], row))
        *means, embedding = (signal.mean(0) for signal in signals(augmented(images, row)))
        distances, start = [], 0
        for part in of_class:
            end = start + len(part.rows)
            *targets, target = ((part.weights[:, None] * signal[start:end]).sum(0) for signal in of_real)
            layers = sum((a - b).square().sum() for a, b in zip(targets, means, strict=True))
            distances.append(FACTOR * (layers + task_balance * (target - embedding).square().sum()))
            start = end
        total = total + class_loss(of_class, distances, bool(segments.worst))
    return total
