"""Trajectory matching (MTT; Cazenavette et al., CVPR 2022), exact in the memory of one step, and TESLA (Cui et al.,
ICML 2023), its approximation.

A student starts from an expert's parameters theta_0 and takes N plain SGD steps on the synthetic set,

    theta_{i+1} = theta_i - a g_i,    g_i = grad over theta of CE(f(A_i(X_i); theta_i), y_i),

and should end where the expert is some epochs later, at theta*:

    L = ||theta_N - theta*||^2 / D,    D = ||theta_0 - theta*||^2.

The published code keeps the graph of every step, to differentiate through all of them. The same derivative is the
adjoint sweep lambda_N = dL / d theta_N = 2 (theta_N - theta*) / D, and for i = N-1 ... 0

    dL/da -= lambda_{i+1} . g_i,    dL/dX_i += -a lambda_{i+1} . d g_i / d X_i,
    lambda_i = lambda_{i+1} - a lambda_{i+1} . d g_i / d theta_i,

which needs theta_i, kept from the way there, and the graph of one step at a time, made again on the way back. TESLA
takes every theta_i for a constant, which is this sweep with lambda_i = lambda_N throughout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fastdd import models, ops
from fastdd.core.text import did_you_mean

UNROLLS = ("exact", "full", "tesla")
# Images at a time, in chunks for a forward pass: with twice as many a step is 10 % faster (50 images of 32x32, 2 cores:
# 135 ms in halves, 152 ms in chunks of 16, 184 ms at once).
_CHUNKS = 2


@dataclass(frozen=True)
class Gradients:
    """Of the loss of one trajectory.

    Attributes:
        images: of the synthetic images' shape.
        step_size: scalar, in the step size itself.
        labels: [M, classes], in the logits of soft labels; None for hard labels.
    """

    images: Tensor
    step_size: Tensor
    labels: Tensor | None


def parameters(net: nn.Module) -> Tensor:
    """The network's parameters as one vector [P], in the order of ``net.parameters()``; a copy."""
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def logits(net: nn.Module, theta: Tensor, images: Tensor) -> Tensor:
    """What ``net`` says of the images [M, C, H, W] with the parameters ``theta`` [P] in place of its own."""
    named = dict(net.named_parameters())
    parts = theta.split([p.numel() for p in named.values()])
    own = {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}
    return functional_call(net, own, (images,))


def loss_and_gradients(
    net: nn.Module,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    step_size: Tensor,
    batches: Sequence[Tensor],
    params: Sequence[Tensor],
    *,
    unroll: str = "exact",
    memory: str = "auto",
) -> tuple[Tensor, Gradients]:
    """The loss of one trajectory, and its gradients in the synthetic images, the step size and soft labels.

    Args:
        net: its structure; its parameters' values are not used.
        start, target: [P], the expert's parameters where the student starts, and where it should end.
        images: float [M, channels, H, W], the synthetic images, normalised.
        labels: int64 [M], classes; or floating point [M, classes], the logits of soft labels, softmax(labels).
        step_size: scalar a of the images' dtype.
        batches: rows of the images, int64 [b], of each of the N steps; a row at most once a step.
        params: [b, 13], augmentation parameters (:mod:`fastdd.ops.augment`) of every step, one row an image.
        unroll: ``exact``; ``full``, the same by keeping every step's graph, for reference; or ``tesla``, which leaves
            out that a step depends on the steps before it: the gradients of its formula, an approximation of the
            others for more than one step. (Its published code gives the images one half of the formula's gradient, by
            accident; that factor is the caller's.)
        memory: ``auto``: on CPUs a step's images in chunks whose activations stay in cache, on GPUs all at once; or
            ``low``: chunks on GPUs too. Networks with batch norm take a step's images at once.

    Returns:
        Scalar loss and :class:`Gradients`.

    Raises:
        ValueError: an unknown unroll.

    Cost: exact, N training steps and N second-order steps (a full unroll saves the former, but keeps every
    graph). Memory: exact and tesla, the second-order graph of one chunk and N + 1 parameter vectors; full, the graphs
    of N steps. Two runs are bitwise equal.
    """
    if unroll not in UNROLLS:
        raise ValueError(f"unroll must be one of {', '.join(UNROLLS)}, not {unroll!r}{did_you_mean(unroll, UNROLLS)}")
    student = _Student(net, images, labels, memory)
    scale = (start - target).square().sum()
    if unroll == "full":
        return _full(student, start, target, scale, step_size, batches, params)
    return _sweep(student, start, target, scale, step_size, batches, params, carry=unroll == "exact")


class _Student:
    """The network's gradient on rows of the synthetic set, first and second order."""

    def __init__(self, net: nn.Module, images: Tensor, labels: Tensor, memory: str):
        self.net, self.images, self.labels = net, images.detach(), labels.detach()
        self.soft = labels.is_floating_point()
        at_once = models.chunk_size(net, images, images.dtype, low_memory=memory == "low")
        self.most = len(images) if models.couples_samples(net) else _CHUNKS * at_once

    def chunks(self, rows: Tensor, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        parts = -(-len(rows) // self.most)
        return zip(rows.chunk(parts), params.chunk(parts), strict=True)

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor, params: Tensor, size: int, **options: bool) -> Tensor:
        """[P], of the cross-entropy, summed over some images of a batch of ``size``."""
        output = logits(self.net, theta, ops.augment(x, params))
        loss = F.cross_entropy(output, y.softmax(1) if self.soft else y, reduction="sum") / size
        return torch.autograd.grad(loss, theta, **options)[0]


def _sweep(
    student: _Student,
    start: Tensor,
    target: Tensor,
    scale: Tensor,
    step_size: Tensor,
    batches: Sequence[Tensor],
    params: Sequence[Tensor],
    *,
    carry: bool,
) -> tuple[Tensor, Gradients]:
    step_size = step_size.detach()
    thetas = start.new_empty(len(batches) + 1, len(start))
    thetas[0] = start
    for i, (rows, of_rows) in enumerate(zip(batches, params, strict=True)):
        total = torch.zeros_like(start)
        for some, of_some in student.chunks(rows, of_rows):
            with torch.enable_grad():
                theta = thetas[i].detach().requires_grad_()
                total += student.gradient(theta, student.images[some], student.labels[some], of_some, len(rows))
        torch.sub(thetas[i], step_size * total, out=thetas[i + 1])

    left = thetas[-1] - target
    adjoint = 2 * left / scale
    to_images, to_step = torch.zeros_like(student.images), torch.zeros_like(step_size)
    to_labels = torch.zeros_like(student.labels) if student.soft else None
    for i in reversed(range(len(batches))):
        rows, pull = batches[i], -step_size * adjoint
        to_theta, total = torch.zeros_like(start), torch.zeros_like(start)
        for some, of_some in student.chunks(rows, params[i]):
            with torch.enable_grad():
                theta = thetas[i].detach().requires_grad_()
                x, y = student.images[some].requires_grad_(), student.labels[some]
                inputs = [x, *([y.requires_grad_()] if student.soft else []), *([theta] if carry else [])]
                g = student.gradient(theta, x, y, of_some, len(rows), create_graph=True)
            to_x, *others = torch.autograd.grad(g, inputs, pull)
            total += g.detach()
            to_images[some] += to_x  # a row is in a batch once, so nothing is added twice
            if student.soft:
                to_labels[some] += others.pop(0)
            if carry:
                to_theta += others.pop()
        to_step -= adjoint.dot(total)
        if carry:
            adjoint += to_theta
    return left.square().sum() / scale, Gradients(to_images, to_step, to_labels)


def _full(
    student: _Student,
    start: Tensor,
    target: Tensor,
    scale: Tensor,
    step_size: Tensor,
    batches: Sequence[Tensor],
    params: Sequence[Tensor],
) -> tuple[Tensor, Gradients]:
    with torch.enable_grad():
        student.images, step_size = student.images.requires_grad_(), step_size.detach().requires_grad_()
        inputs = [student.images, step_size]
        if student.soft:
            student.labels = student.labels.requires_grad_()
            inputs.append(student.labels)
        theta = start.detach().requires_grad_()
        for rows, of_rows in zip(batches, params, strict=True):
            g = sum(
                student.gradient(
                    theta, student.images[some], student.labels[some], of_some, len(rows), create_graph=True
                )
                for some, of_some in student.chunks(rows, of_rows)
            )
            theta = theta - step_size * g
        loss = (theta - target).square().sum() / scale
    to_images, to_step, *to_labels = torch.autograd.grad(loss, inputs)
    return loss.detach(), Gradients(to_images, to_step, to_labels[0] if to_labels else None)
