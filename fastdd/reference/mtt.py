"""Trajectory matching and TESLA, as they are written down: one graph over all steps, and TESLA's two passes."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


def student_of(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[Tensor, Callable, Tensor], Tensor]:
    """The mean cross-entropy of rows of the synthetic set, augmented, as a function of the parameters [P]."""
    named = [(name, p.shape) for name, p in net.named_parameters()]

    def loss(theta: Tensor, augment: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        parts = theta.split([shape.numel() for _, shape in named])
        own = {name: part.view(shape) for (name, shape), part in zip(named, parts, strict=True)}
        y = labels[rows]
        return F.cross_entropy(
            functional_call(net, own, (augment(images[rows]),)), y.softmax(1) if y.is_floating_point() else y
        )

    return loss


def mtt_loss(
    net: nn.Module,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    step_size: Tensor,
    batches: Sequence[Tensor],
    augmentations: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """``||theta_N - target||^2 / ||start - target||^2``, differentiable through every step; [P], [M, ...] as given."""
    loss = student_of(net, images, labels)
    theta = start.detach().requires_grad_()
    for rows, augment in zip(batches, augmentations, strict=True):
        (g,) = torch.autograd.grad(loss(theta, augment, rows), theta, create_graph=True)
        theta = theta - step_size * g
    return (theta - target).square().sum() / (start - target).square().sum()


def tesla_gradients(
    net: nn.Module,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    step_size: Tensor,
    batches: Sequence[Tensor],
    augmentations: Sequence[Callable[[Tensor], Tensor]],
) -> tuple[Tensor, Tensor, Tensor]:
    """TESLA's loss and its gradients in the images and the step size.

    With G = sum of g_i and D = ||start - target||^2: L = ||start - a G - target||^2 / D, dL/dX_i = (2 / D) [a (target -
    start) + a^2 G] . d g_i / d X_i with theta_i constant, and dL/da with G constant.
    """
    loss = student_of(net, images, labels)
    step_size, theta = step_size.detach(), start.detach()
    thetas, total = [], torch.zeros_like(start)
    for rows, augment in zip(batches, augmentations, strict=True):
        thetas.append(theta.requires_grad_())
        (g,) = torch.autograd.grad(loss(theta, augment, rows), theta)
        total, theta = total + g, (theta - step_size * g).detach()
    scale = (start - target).square().sum()
    direction = 2 / scale * (step_size * (target - start) + step_size**2 * total)
    to_images = torch.zeros_like(images)
    for theta, rows, augment in zip(thetas, batches, augmentations, strict=True):
        (g,) = torch.autograd.grad(loss(theta, augment, rows), theta, create_graph=True)
        to_images += torch.autograd.grad(direction.dot(g), images)[0]
    a = step_size.clone().requires_grad_()
    value = (start - a * total - target).square().sum() / scale
    return value.detach(), to_images, torch.autograd.grad(value, a)[0]
