"""Trajectory matching: one graph over all steps of the student (MTT), and TESLA's two passes.

There is no real data in either: a debias mode acts in the training of the experts.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

Augmentation = Callable[[Tensor], Tensor]


def student_of(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits as a function of all parameters as one vector [P], in the network's order, and of images."""
    names, shapes = zip(*((name, p.shape) for name, p in net.named_parameters()), strict=True)

    def logits(theta: Tensor, images: Tensor) -> Tensor:
        parts = theta.split([shape.numel() for shape in shapes])
        views = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return functional_call(net, views, (images,))

    return logits


def _objective(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[Tensor, Augmentation, Tensor], Tensor]:
    """The mean cross-entropy of augmented rows of the synthetic set, as a function of the parameters."""
    student = student_of(net)
    targets = labels.softmax(1) if labels.is_floating_point() else labels
    return lambda theta, augment, rows: F.cross_entropy(student(theta, augment(images[rows])), targets[rows])


def loss(
    net: nn.Module,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    step_size: Tensor,
    batches: Sequence[Tensor],
    augmentations: Sequence[Augmentation],
) -> Tensor:
    """MTT's loss of one iteration, ``||theta_N - target||^2 / ||start - target||^2``.

    Args:
        net: the student; its own parameters are not used.
        start, target: [P], an expert's parameters where the student starts and where it should end.
        images: [M, channels, H, W], the synthetic set.
        labels: int64 [M], or [M, C] logits.
        step_size: scalar, the student's.
        batches: int64 [b] for every step of the student, rows of the synthetic set.
        augmentations: of every step.

    Returns:
        Scalar, differentiable through every step, in images, step size and logits.
    """
    objective = _objective(net, images, labels)
    theta = start.detach().clone().requires_grad_()
    for rows, augment in zip(batches, augmentations, strict=True):
        (g,) = torch.autograd.grad(objective(theta, augment, rows), theta, create_graph=True)
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
    augmentations: Sequence[Augmentation],
) -> tuple[Tensor, Tensor, Tensor]:
    """TESLA's loss, and its gradients in the images, which must require one, and in the step size.

    With G = sum of g_i and D = ||start - target||^2: L = ||start - a G - target||^2 / D, dL/dX_i = (2 / D) [a (target -
    start) + a^2 G] . d g_i / d X_i with theta_i constant, and dL/da with G constant. Arguments are those of
    :func:`loss`.
    """
    objective = _objective(net, images, labels)
    step_size, theta = step_size.detach(), start.detach().clone()
    thetas, total = [], torch.zeros_like(start)
    for rows, augment in zip(batches, augmentations, strict=True):
        thetas.append(theta.requires_grad_())
        (g,) = torch.autograd.grad(objective(theta, augment, rows), theta)
        total, theta = total + g, (theta - step_size * g).detach()
    scale = (start - target).square().sum()
    direction = 2 / scale * (step_size * (target - start) + step_size**2 * total)
    to_images = torch.zeros_like(images)
    for theta, rows, augment in zip(thetas, batches, augmentations, strict=True):
        (g,) = torch.autograd.grad(objective(theta, augment, rows), theta, create_graph=True)
        to_images += torch.autograd.grad(direction.dot(g), images)[0]
    a = step_size.clone().requires_grad_()
    value = (start - a * total - target).square().sum() / scale
    return value.detach(), to_images, torch.autograd.grad(value, a)[0]
