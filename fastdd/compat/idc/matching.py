"""IDC's matching loss, in features or gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["add_loss", "dist", "matchloss"]


def dist(x: Tensor, y: Tensor, method: str = "mse") -> Tensor:
    """Sum of squares (``mse``), of absolute values (``l1``), of their means over each first index (``l1_mean``), or of
    one minus the cosine of each first index (``cos``)."""
    if method == "mse":
        return (x - y).pow(2).sum()
    if method == "l1":
        return (x - y).abs().sum()
    if method not in ("l1_mean", "cos"):
        raise ValueError(f"method must be mse, l1, l1_mean or cos, not {method!r}")
    x, y = x.reshape(x.shape[0], -1), y.reshape(y.shape[0], -1)
    if method == "l1_mean":
        return (x - y).abs().mean(-1).sum()
    return (1 - (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1) + 1e-6)).sum()


def add_loss(loss_sum: Tensor | None, loss: Tensor) -> Tensor:
    """The sum, which starts as None."""
    return loss if loss_sum is None else loss_sum + loss


def matchloss(
    args: Any, img_real: Tensor, img_syn: Tensor, lab_real: Tensor, lab_syn: Tensor, model: nn.Module
) -> Tensor | None:
    """Distance between real and synthetic images, in a network's features or gradients.

    ``args.match`` is ``feat`` (batch means of ``model.get_feature(images, args.idx_from, args.idx_to)``) or ``grad``
    (of the cross entropy, without biases and norms unless ``args.bias``, without matrices unless ``args.fc``);
    ``args.metric`` that of :func:`dist`. Gradients that do not count are not computed.

    Returns:
        The loss, to be differentiated in ``img_syn``; None if nothing is matched.
    """
    if args.match == "feat":
        with torch.no_grad():
            real = [feature.mean(0) for feature in model.get_feature(img_real, args.idx_from, args.idx_to)]
        synthetic = [feature.mean(0) for feature in model.get_feature(img_syn, args.idx_from, args.idx_to)]
    elif args.match == "grad":
        matched = [p for p in model.parameters() if (p.dim() != 1 or args.bias) and (p.dim() != 2 or args.fc)]
        real = torch.autograd.grad(F.cross_entropy(model(img_real), lab_real), matched)
        synthetic = torch.autograd.grad(F.cross_entropy(model(img_syn), lab_syn), matched, create_graph=True)
    else:
        raise ValueError(f"args.match must be feat or grad, not {args.match!r}")
    loss = None
    for a, b in zip(real, synthetic, strict=True):
        loss = add_loss(loss, dist(a, b, method=args.metric))
    return loss
