"""Distribution matching: distances of mean embeddings (DM; FairDD with a segment a group)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastdd.bench.oracles.segments import augment, by_class, class_loss
from fastdd.debias import Segments

# As in the cosine of gradient matching.
_EPS = 1e-6


def distance(target: Tensor, mean: Tensor, metric: str) -> Tensor:
    """Of two vectors: squared (``l2``), of absolute differences (``l1``), or 1 - cosine (``cos``)."""
    if metric == "cos":
        return 1 - (target @ mean) / (target.norm() * mean.norm() + _EPS)
    differences = target - mean
    return differences.abs().sum() if metric == "l1" else differences.square().sum()


def loss(
    net: nn.Module,
    real: Tensor,
    segments: Segments,
    synthetic: Tensor,
    params: Sequence[Any],
    *,
    metric: str = "l2",
    augmented: Callable[[Tensor, Any], Tensor] = augment,
) -> Tensor:
    """DM's loss of one step.

    Args:
        net: a network with ``embed``. It sees all real images of a class as one batch, and so all synthetic ones.
        real: float [N, channels, H, W], normalised; ``segments.rows`` are rows of it.
        segments: the step's real samples, of C classes.
        synthetic: float [C * IPC, channels, H, W], class-major: what the network sees of the synthetic set.
        metric: ``l2``, ``l1`` or ``cos``.
        params: of every class the parameters of its augmentation, such as [C, P].
        augmented: the augmentation, called with images and one of ``params``.

    Returns:
        Scalar: the sum over classes of the (weighted) distances of their segments, or of the largest of them.
    """
    total = synthetic.new_zeros(())
    classes = by_class(segments, len(params), synthetic.dtype)
    for of_class, images, row in zip(classes, synthetic.chunk(len(classes)), params, strict=True):
        if not of_class:
            continue
        with torch.no_grad():
            embeddings = net.embed(augmented(real[torch.cat([part.rows for part in of_class])], row))
        mean = net.embed(augmented(images, row)).mean(0)
        distances = []
        for part, signals in zip(of_class, embeddings.split([len(part.rows) for part in of_class]), strict=True):
            target = (part.weights[:, None] * signals).sum(0)
            distances.append(distance(target, mean, metric))
        total = total + class_loss(of_class, distances, bool(segments.worst))
    return total
