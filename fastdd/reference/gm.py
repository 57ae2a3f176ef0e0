"""Gradient matching as published, a Python loop over classes, groups, layers and rows: ground truth."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.reference.augment import augment

_EPS = 1e-6


def match(synthetic: list[Tensor], real: list[Tensor], metric: str) -> Tensor:
    """Published ``match_loss`` of one class's (or group's) gradients, layer by layer."""
    if metric == "mse":
        return sum((s - r).square().sum() for s, r in zip(synthetic, real, strict=True))
    if metric == "cos":
        s, r = (torch.cat([g.flatten() for g in side]) for side in (synthetic, real))
        return 1 - (s * r).sum() / (s.norm() * r.norm() + _EPS)
    total = synthetic[0].new_zeros(())
    for s_layer, r_layer in zip(synthetic, real, strict=True):
        if s_layer.dim() > 1:
            for s, r in zip(s_layer.flatten(1), r_layer.flatten(1), strict=True):
                total = total + 1 - (s * r).sum() / (s.norm() * r.norm() + _EPS)
    return total


def gm_loss(
    net: nn.Module,
    real: list[Tensor],
    groups: list[Tensor] | None,
    synthetic: Tensor,
    params: Tensor,
    *,
    metric: str = "ours",
    weights: list[Tensor] | None = None,
    augmented: Callable[[Tensor, Tensor], Tensor] = augment,
) -> Tensor:
    """The loss of one matching step of DC or DSA, differentiable in the synthetic images through all parameters.

    Args:
        net: logits of images; its parameters must require a gradient.
        real: normalised real images of every class, float [B_c, channels, H, W].
        groups: int64 [B_c] a class, for FairDD; None for vanilla.
        synthetic: float [C * IPC, channels, H, W], class-major.
        params: [C, P], augmentation parameters of every class.
        metric: ours, mse or cos.
        weights: float [B_c] a class, of the samples' losses, normalised here; None for the mean.
        augmented: the augmentation, of images and one parameter row [1, P].

    Returns:
        Scalar: the sum over classes, and over the groups present in a class, of :func:`match`.
    """
    parameters = [*net.parameters()]
    total = synthetic.new_zeros(())
    for c, images in enumerate(synthetic.split(len(synthetic) // len(real))):
        row = params[c : c + 1]
        labels = torch.full((len(real[c]),), c)
        losses = F.cross_entropy(net(augmented(real[c], row)), labels, reduction="none")
        loss = F.cross_entropy(net(augmented(images, row)), labels.new_full((len(images),), c))
        own = torch.autograd.grad(loss, parameters, create_graph=True)
        share = torch.ones_like(losses) if weights is None else weights[c]
        for group in [None] if groups is None else groups[c].unique():
            inside = torch.ones_like(labels, dtype=torch.bool) if group is None else groups[c] == group
            value = (share[inside] * losses[inside]).sum() / share[inside].sum()
            pulling = torch.autograd.grad(value, parameters, retain_graph=True)
            total = total + match(own, pulling, metric)
    return total
