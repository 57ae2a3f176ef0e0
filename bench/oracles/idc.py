"""Gradient matching of convolutions (IDC): absolute or squared differences; an optimiser stepped class by class."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.bench.oracles.segments import augment, by_class, class_loss
from fastdd.debias import Segments


def in_turn(images: Tensor, passes: Tensor) -> Tensor:
    """``images`` under one row of augmentation parameters after another."""
    for row in passes:
        images = augment(images, row)
    return images


def distance(synthetic: Sequence[Tensor], real: Sequence[Tensor], metric: str) -> Tensor:
    """Of two lists of gradients, one a convolution: the sum of absolute (``l1``) or squared (``mse``) differences."""
    differences = [s - r for s, r in zip(synthetic, real, strict=True)]
    return sum(d.abs().sum() if metric == "l1" else d.square().sum() for d in differences)


def loss(
    net: nn.Module,
    real: Tensor,
    segments: Segments,
    synthetic: Tensor,
    params: Sequence[Any],
    *,
    metric: str = "mse",
    augmented: Callable[[Tensor, Any], Tensor] = in_turn,
) -> Tensor:
    """The loss of one matching step of all classes.

    Args:
        net: as that of :func:`fastdd.bench.oracles.dc.loss`; what is matched are its parameters of four dimensions.
        metric: ``l1`` or ``mse``.
        synthetic: the parts that the network sees, class by class, enlarged and normalised.
        real, segments, params, augmented: as those of :func:`fastdd.bench.oracles.dm.loss`; a class's ``params`` are
            rows, applied in turn.

    Returns:
        Scalar: the sum over classes of the (weighted) distances of their segments, or of the largest of them.
    """
    convolutions = [parameter for parameter in net.parameters() if parameter.dim() == 4]

    def cross_entropies(images: Tensor, label: int) -> Tensor:
        return F.cross_entropy(net(images), torch.full((len(images),), label, device=images.device), reduction="none")

    total = synthetic.new_zeros(())
    classes = by_class(segments, len(params), synthetic.dtype)
    per_class = zip(classes, synthetic.chunk(len(classes)), params, strict=True)
    for label, (of_class, images, rows) in enumerate(per_class):
        if not of_class:
            continue
        mean = cross_entropies(augmented(images, rows), label).mean()
        matched = torch.autograd.grad(mean, convolutions, create_graph=True)
        distances = []
        for part in of_class:
            weighted = (part.weights * cross_entropies(augmented(real[part.rows], rows), label)).sum()
            distances.append(distance(matched, torch.autograd.grad(weighted, convolutions), metric))
        total = total + class_loss(of_class, distances, bool(segments.worst))
    return total


def sgd_in_turn(
    images: Tensor,
    gradient_of: Callable[[Tensor, int], Tensor],
    *,
    steps: int,
    inner: int,
    lr: float,
    momentum: float,
    num_classes: int,
) -> tuple[Tensor, Tensor]:
    """Images and momentum after so many steps of each class: one optimiser, one leaf, one ``step()`` a class.

    Args:
        images: [num_classes * IPC, ...], class-major; left as they are.
        gradient_of: (images, class) -> the gradient of that class's loss in all images.
        inner: steps of a network; before its first, images are put back into [0, 1].
    """
    leaf = images.clone().requires_grad_()
    sgd = torch.optim.SGD([leaf], lr=lr, momentum=momentum)
    for step in range(steps):
        if step % inner == 0:
            leaf.data = leaf.data.clamp(0, 1)
        for label in range(num_classes):
            sgd.zero_grad()
            leaf.grad = gradient_of(leaf.detach(), label)
            sgd.step()
    return leaf.detach(), sgd.state[leaf].get("momentum_buffer", torch.zeros_like(images))
