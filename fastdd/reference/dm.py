"""Distribution matching as published, a Python loop over classes and groups: ground truth and baseline."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastdd.reference.augment import augment


def dm_loss(
    net: nn.Module,
    real: list[Tensor],
    groups: list[Tensor] | None,
    synthetic: Tensor,
    params: Tensor,
    augmented: Callable[[Tensor, Tensor], Tensor] = augment,
) -> Tensor:
    """DM's loss, or FairDD's when groups are given, one class after the other.

    Args:
        net: a network with ``embed``.
        real: normalised real images of every class, float [B_c, channels, H, W].
        groups: int64 [B_c] a class, for FairDD; None for vanilla DM.
        synthetic: float [C * IPC, channels, H, W], class-major.
        params: [C, P], augmentation parameters of every class.
        augmented: the augmentation, of images and one parameter row [1, P].

    Returns:
        Scalar loss: sum over classes (and over the groups present in a class) of squared distances of mean embeddings.
    """
    total = synthetic.new_zeros(())
    for c, images in enumerate(synthetic.split(len(synthetic) // len(real))):
        row = params[c : c + 1]
        with torch.no_grad():
            embeddings = net.embed(augmented(real[c], row))
        mean = net.embed(augmented(images, row)).mean(0)
        if groups is None:
            total = total + (embeddings.mean(0) - mean).square().sum()
        else:
            for group in groups[c].unique():
                total = total + (embeddings[groups[c] == group].mean(0) - mean).square().sum()
    return total
