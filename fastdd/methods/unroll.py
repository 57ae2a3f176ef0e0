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

which needs theta_i, kept from the way there, and the derivative of one step's gradient along lambda_{i+1}. TESLA takes
every theta_i for a constant, which is this sweep with lambda_i = lambda_N throughout.

For ConvNets on CPUs it is made by dual numbers (:class:`fastdd.models.ConvNetLoss`), for others through the graph of
the step, made again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fastdd import models, ops
from fastdd.core.malloc import give_back, give_back_growth
from fastdd.core.text import did_you_mean

UNROLLS = ("exact", "full", "tesla")
# Images at a time, in chunks for a forward pass: with twice as many a step is 10 % faster (50 images of 32x32, 2 cores:
# 135 ms in halves, 152 ms in chunks of 16, 184 ms at once).
_CHUNKS = 2
# Of activations and their tangents, in bytes, for images that go through a ConvNet at once: all 50 of 32x32 in three
# blocks of 128 filters.
_ARENA_BYTES = 1 << 26


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


class Arena:
    """Memory that trajectories use again: every step's parameters, and the activations of a step.

    For runs: what is allocated and freed in every step breaks malloc's heap up (:mod:`fastdd.core.malloc`), and
    resident memory grows from one iteration to the next.
    """

    def __init__(self):
        self._thetas = torch.empty(0)
        self._of: tuple = ()  # what the loss is of
        self._loss: models.ConvNetLoss | None = None

    def thetas(self, count: int, like: Tensor) -> Tensor:
        """[count, P] for parameters like those given, with arbitrary contents."""
        shape, kept = (count, len(like)), self._thetas
        if kept.shape != shape or kept.dtype != like.dtype or kept.device != like.device:
            self._thetas = like.new_empty(shape)
        return self._thetas

    def loss(self, net: nn.Module, images: Tensor, most: int) -> models.ConvNetLoss | None:
        """The loss of ``net`` by dual numbers, of up to ``most`` such images at once; None where it has none."""
        if not models.ConvNetLoss.fits(net, images):
            self._of, self._loss = (), None
            return None
        bytes_of_one = images.dtype.itemsize * models.ConvNetLoss.floats_of_an_image(net, images.shape)
        shape = torch.Size((min(most, max(_CHUNKS, _ARENA_BYTES // bytes_of_one)), *images.shape[1:]))
        if self._loss is None or self._of[0] is not net or self._of[1:] != (shape, images.dtype):
            self._of, self._loss = (net, shape, images.dtype), models.ConvNetLoss(net, shape, images.dtype)
        return self._loss

    def give_back(self) -> None:
        """What malloc keeps of freed memory back to the kernel, for between two trajectories.

        All of it where a step's activations lie here, as it is then a few tensors of the images' and the parameters'
        size (1 ms, or less); otherwise, as getting a graph's memory again would take a tenth of an iteration, where it
        has come to half a GiB.
        """
        if self._thetas.device.type == "cpu":
            (give_back_growth if self._loss is None else give_back)()


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
    arena: Arena | None = None,
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
        arena: memory to use, of calls before; its own by default.

    Returns:
        Scalar loss and :class:`Gradients`.

    Raises:
        ValueError: an unknown unroll.

    Cost, in convolutions of a layer and step: full 9, and the graphs of N steps in memory. Exact 12 by a step's graph
    and 11 by dual numbers, and the activations of one step (or of a chunk of it) with N + 1 parameter vectors; tesla 12
    and 9, in the same memory. Two runs are bitwise equal.
    """
    if unroll not in UNROLLS:
        raise ValueError(f"unroll must be one of {', '.join(UNROLLS)}, not {unroll!r}{did_you_mean(unroll, UNROLLS)}")
    scale = (start - target).square().sum()
    if unroll == "full":
        return _full(_ByGraph(net, images, labels, memory), start, target, scale, step_size, batches, params)
    arena = arena or Arena()
    loss = arena.loss(net, images, max(map(len, batches)))
    student = _ByGraph(net, images, labels, memory) if loss is None else _ByDuals(loss, images, labels)
    thetas = arena.thetas(len(batches) + 1, start)
    return _sweep(student, thetas, start, target, scale, step_size.detach(), batches, params, carry=unroll == "exact")


class _Student:
    """A network's gradient on rows of the synthetic set, and that gradient's derivatives."""

    most: int  # images at once

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images.detach(), labels.detach()
        self.soft = labels.is_floating_point()

    def chunks(self, rows: Tensor, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        parts = -(-len(rows) // self.most)
        return zip(rows.chunk(parts), params.chunk(parts), strict=True)

    def gradient(self, theta: Tensor, rows: Tensor, params: Tensor) -> Tensor:
        """[P], of the mean cross-entropy of a step's images."""
        raise NotImplementedError

    def pull(
        self,
        theta: Tensor,
        adjoint: Tensor,
        step_size: Tensor,
        rows: Tensor,
        params: Tensor,
        to: Gradients,
        carry: bool,
    ) -> Tensor | None:
        """Adds to the gradients what reaches them through a step, of an adjoint [P] of the parameters after it.

        Returns:
            What to add to the adjoint for the parameters before the step; None unless ``carry``.
        """
        raise NotImplementedError


class _ByGraph(_Student):
    """By PyTorch's derivatives: of any network, on any device."""

    def __init__(self, net: nn.Module, images: Tensor, labels: Tensor, memory: str):
        super().__init__(images, labels)
        self.net = net
        at_once = models.chunk_size(net, images, images.dtype, low_memory=memory == "low")
        self.most = len(images) if models.couples_samples(net) else _CHUNKS * at_once

    def summed(self, theta: Tensor, x: Tensor, y: Tensor, params: Tensor, size: int, **options: bool) -> Tensor:
        """[P], the gradient of the cross-entropy, summed over some images of a batch of ``size``."""
        output = logits(self.net, theta, ops.augment(x, params))
        loss = F.cross_entropy(output, y.softmax(1) if self.soft else y, reduction="sum") / size
        return torch.autograd.grad(loss, theta, **options)[0]

    def gradient(self, theta: Tensor, rows: Tensor, params: Tensor) -> Tensor:
        total = torch.zeros_like(theta)
        for some, of_some in self.chunks(rows, params):
            with torch.enable_grad():
                leaf = theta.detach().requires_grad_()
                total += self.summed(leaf, self.images[some], self.labels[some], of_some, len(rows))
        return total

    def pull(
        self,
        theta: Tensor,
        adjoint: Tensor,
        step_size: Tensor,
        rows: Tensor,
        params: Tensor,
        to: Gradients,
        carry: bool,
    ) -> Tensor | None:
        direction, to_theta, total = -step_size * adjoint, torch.zeros_like(adjoint), torch.zeros_like(adjoint)
        for some, of_some in self.chunks(rows, params):
            with torch.enable_grad():
                leaf = theta.detach().requires_grad_()
                x, y = self.images[some].requires_grad_(), self.labels[some]
                inputs = [x, *([y.requires_grad_()] if self.soft else []), *([leaf] if carry else [])]
                g = self.summed(leaf, x, y, of_some, len(rows), create_graph=True)
            to_x, *others = torch.autograd.grad(g, inputs, direction)
            total += g.detach()
            to.images[some] += to_x  # a row is in a batch once, so nothing is added twice
            if self.soft:
                to.labels[some] += others.pop(0)
            if carry:
                to_theta += others.pop()
        to.step_size.sub_(adjoint.dot(total))
        return to_theta if carry else None


class _ByDuals(_Student):
    """By dual numbers: of a ConvNet on the CPU."""

    def __init__(self, loss: models.ConvNetLoss, images: Tensor, labels: Tensor):
        super().__init__(images, labels)
        self.loss, self.most = loss, loss.most
        self.targets = labels.softmax(1) if self.soft else F.one_hot(labels, loss.classes).to(images.dtype)

    def gradient(self, theta: Tensor, rows: Tensor, params: Tensor) -> Tensor:
        total = torch.zeros_like(theta)
        for some, of_some in self.chunks(rows, params):
            x = ops.augment(self.images[some], of_some)
            total += self.loss.gradient(theta, x, self.targets[some], len(rows))
        return total

    def pull(
        self,
        theta: Tensor,
        adjoint: Tensor,
        step_size: Tensor,
        rows: Tensor,
        params: Tensor,
        to: Gradients,
        carry: bool,
    ) -> Tensor | None:
        to_theta = torch.zeros_like(adjoint) if carry else None
        for some, of_some in self.chunks(rows, params):
            with torch.enable_grad():
                leaf = self.images[some].requires_grad_()
                x = ops.augment(leaf, of_some)
            targets = self.targets[some]
            along, curved = self.loss.along(theta, adjoint, x.detach(), targets, len(rows), curvature=carry)
            to.step_size.sub_(along.slope)
            to.images[some] -= step_size * torch.autograd.grad(x, leaf, along.images)[0]
            if self.soft:
                centred = along.targets - (targets * along.targets).sum(1, keepdim=True)
                to.labels[some] -= step_size * targets * centred
            if carry:
                to_theta.addcmul_(curved, step_size, value=-1)
        return to_theta


def _sweep(
    student: _Student,
    thetas: Tensor,
    start: Tensor,
    target: Tensor,
    scale: Tensor,
    step_size: Tensor,
    batches: Sequence[Tensor],
    params: Sequence[Tensor],
    *,
    carry: bool,
) -> tuple[Tensor, Gradients]:
    thetas[0] = start
    for i, (rows, of_rows) in enumerate(zip(batches, params, strict=True)):
        torch.sub(thetas[i], step_size * student.gradient(thetas[i], rows, of_rows), out=thetas[i + 1])

    left = thetas[-1] - target
    adjoint = 2 * left / scale
    to = Gradients(
        torch.zeros_like(student.images),
        torch.zeros_like(step_size),
        torch.zeros_like(student.labels) if student.soft else None,
    )
    for i in reversed(range(len(batches))):
        to_theta = student.pull(thetas[i], adjoint, step_size, batches[i], params[i], to, carry)
        if carry:
            adjoint += to_theta
    return left.square().sum() / scale, to


def _full(
    student: _ByGraph,
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
                student.summed(theta, student.images[some], student.labels[some], of_some, len(rows), create_graph=True)
                for some, of_some in student.chunks(rows, of_rows)
            )
            theta = theta - step_size * g
        loss = (theta - target).square().sum() / scale
    to_images, to_step, *to_labels = torch.autograd.grad(loss, inputs)
    return loss.detach(), Gradients(to_images, to_step, to_labels[0] if to_labels else None)
