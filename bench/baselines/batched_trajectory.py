"""Trajectory matching in the best plain PyTorch: ``functional_call``, chunks of a batch, no graph that nobody uses."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from fastdd.bench.baselines import plain
from fastdd.bench.baselines.problem import TrajectoryProblem
from fastdd.bench.baselines.published import draw_each
from fastdd.bench.baselines.published_trajectory import Drawn

# On CPUs; on a GPU, all at once. 2 cores, 10 steps with batches of 50, exact: 2.9 s in chunks of 16 (and of 10), 3.0 of
# 25, 3.0 to 3.2 at once; full: 2.1 to 2.2 in any of them.
_CHUNK = 16


class BatchedTrajectories:
    """Iterations of trajectory matching, of the problem's ``unroll``.

    Args:
        problem: what to distil.
    """

    def __init__(self, problem: TrajectoryProblem):
        config, device = problem.config, problem.device
        self._problem, self._net = problem, problem.network().to(device, memory_format=torch.channels_last)
        self._names, self._shapes = zip(*((name, p.shape) for name, p in self._net.named_parameters()), strict=True)
        self.images = problem.images.to(device, copy=True).requires_grad_()
        self.step_size = torch.tensor(config.lr_teacher, device=device, requires_grad=True)
        own = {"momentum": config.momentum, "foreach": True}
        self._sgd = torch.optim.SGD(
            [{"params": [self.images], "lr": config.lr_img}, {"params": [self.step_size], "lr": config.lr_lr}], **own
        )

    def step(self) -> Tensor:
        """One iteration; returns its loss."""
        config, data, device = self._problem.config, self._problem.dataset, self._problem.device
        batches: list[Tensor] = []
        while len(batches) < config.syn_steps:
            batches += torch.randperm(len(self.images), device=device).split(config.batch_syn)
        batches = batches[: config.syn_steps]
        drawn = [draw_each(config.dsa_strategy, len(rows), data.size) for rows in batches]
        self.images.grad, self.step_size.grad, loss = self.gradients(batches, drawn)
        self._sgd.step()
        return loss

    def gradients(self, batches: Sequence[Tensor], drawn: Sequence[Drawn]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the images and of the step size, and loss, of given draws: rows and augmentation of every
        step."""
        start, target = (self._problem.experts.at(0, epoch, self._problem.device) for epoch in (0, 1))
        steps = list(zip(batches, drawn, strict=True))
        if self._problem.config.unroll == "full":
            return self._full(start, target, steps)
        return self._sweep(start, target, steps, carry=self._problem.config.unroll == "exact")

    def _chunks(self, rows: Tensor, drawn: Drawn) -> Iterator[tuple[Tensor, Drawn]]:
        params, operation = drawn
        size = len(rows) if rows.is_cuda else _CHUNK
        for some, of_some in zip(rows.split(size), params.split(size), strict=True):
            yield some, (of_some, operation)

    def _gradient(self, theta: Tensor, images: Tensor, rows: Tensor, drawn: Drawn, size: int, graph: bool) -> Tensor:
        """In theta [P], of some images of a batch of ``size``."""
        parts = theta.split([shape.numel() for shape in self._shapes])
        views = {name: part.view(s) for name, part, s in zip(self._names, parts, self._shapes, strict=True)}
        x = plain.augment_each(images, *drawn).contiguous(memory_format=torch.channels_last)
        losses = F.cross_entropy(functional_call(self._net, views, x), self._problem.labels[rows], reduction="sum")
        return torch.autograd.grad(losses / size, theta, create_graph=graph)[0]

    def _sweep(
        self, start: Tensor, target: Tensor, steps: list[tuple[Tensor, Drawn]], carry: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The parameters forward, and back through one step's graph at a time; all of them constants for TESLA."""
        images, step_size = self.images.detach(), self.step_size.detach()
        thetas = start.new_empty(len(steps) + 1, len(start))
        thetas[0] = start
        for i, (rows, drawn) in enumerate(steps):
            theta = thetas[i].clone().requires_grad_()
            total = torch.zeros_like(start)
            for some, of_some in self._chunks(rows, drawn):
                total += self._gradient(theta, images[some], some, of_some, len(rows), False)
            thetas[i + 1] = thetas[i] - step_size * total
        distance, left = (start - target).square().sum(), thetas[-1] - target
        adjoint, of_images, of_step_size = 2 * left / distance, torch.zeros_like(images), torch.zeros_like(step_size)
        for i, (rows, drawn) in reversed(list(enumerate(steps))):
            theta = thetas[i].clone().requires_grad_()
            pull, total, back = -step_size * adjoint, torch.zeros_like(start), torch.zeros_like(start)
            for some, of_some in self._chunks(rows, drawn):
                x = images[some].requires_grad_()
                gradient = self._gradient(theta, x, some, of_some, len(rows), True)
                of_x, *of_theta = torch.autograd.grad(gradient, [x, theta] if carry else x, pull)
                of_images[some] += of_x
                total += gradient.detach()
                if carry:
                    back += of_theta[0]
            of_step_size -= adjoint @ total
            adjoint = adjoint + back
        return of_images, of_step_size, left.square().sum() / distance

    def _full(self, start: Tensor, target: Tensor, steps: list[tuple[Tensor, Drawn]]) -> tuple[Tensor, Tensor, Tensor]:
        """All steps in one graph."""
        theta = start.requires_grad_()
        for rows, drawn in steps:
            parts = [
                self._gradient(theta, self.images[some], some, of_some, len(rows), True)
                for some, of_some in self._chunks(rows, drawn)
            ]
            theta = theta - self.step_size * torch.stack(parts).sum(0)
        loss = (theta - target).square().sum() / (start - target).square().sum().detach()
        return *torch.autograd.grad(loss, [self.images, self.step_size]), loss.detach()
