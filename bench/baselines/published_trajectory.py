"""Trajectory matching as published (MTT, TESLA): its ``reference-loop``.

What makes it slow is kept: a network built anew for its structure alone, parameters as one vector that is taken apart
in every forward pass, the graph of every step of the student (MTT) or of its first pass (TESLA), a mask or a matrix
element by element for every augmentation.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.bench.baselines import published
from fastdd.bench.baselines.problem import TrajectoryProblem
from fastdd.bench.oracles import mtt

Drawn = tuple[Tensor, str]  # an augmentation: rows [b, 13], and the operation that they have in common


class PublishedTrajectoryLoop:
    """Iterations of MTT, differentiated through all steps of the student.

    Args:
        problem: what to distil.
        dtype: of all arithmetic.
    """

    def __init__(self, problem: TrajectoryProblem, dtype: torch.dtype = torch.float32):
        self._problem, self._dtype = problem, dtype
        config, device, net = problem.config, problem.device, problem.network()
        shapes = [p.shape for p in net.parameters()]
        # As published: of every epoch a list of tensors.
        self._expert = [
            [part.view(shape) for part, shape in zip(values.split([s.numel() for s in shapes]), shapes, strict=True)]
            for values in problem.experts.values[0].to(dtype)
        ]
        self.images = problem.images.to(device, dtype, copy=True).requires_grad_()
        self.step_size = torch.tensor(config.lr_teacher, dtype=dtype, device=device, requires_grad=True)
        self._sgd_images = torch.optim.SGD([self.images], lr=config.lr_img, momentum=config.momentum)
        self._sgd_step_size = torch.optim.SGD([self.step_size], lr=config.lr_lr, momentum=config.momentum)

    def step(self) -> Tensor:
        """One iteration; returns its loss, which published code waits for."""
        loss = self._differentiate(*self._trajectory(), *self._draws())
        self._sgd_images.step()
        self._sgd_step_size.step()
        return torch.tensor(loss.item())

    def gradients(self, batches: Sequence[Tensor], drawn: Sequence[Drawn]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the images and of the step size, and loss, of given draws: rows and augmentation of every
        step."""
        loss = self._differentiate(*self._trajectory(), batches, drawn)
        return self.images.grad, self.step_size.grad, loss

    def _trajectory(self) -> tuple[nn.Module, Tensor, Tensor]:
        """The student's network, where it starts and where it should end."""
        net = self._problem.network().to(self._problem.device).train()
        start, target = (
            torch.cat([p.data.to(self._problem.device).reshape(-1) for p in self._expert[epoch]]) for epoch in (0, 1)
        )
        return net, start, target

    def _draws(self) -> tuple[list[Tensor], list[Drawn]]:
        """Rows and augmentation of every step: batches from the end of the images' order, and then of a new one."""
        config, size, device = self._problem.config, self._problem.dataset.size, self._problem.device
        left: list[Tensor] = []
        batches, drawn = [], []
        for _ in range(config.syn_steps):
            left = left or list(torch.randperm(len(self.images)).split(config.batch_syn))
            batches.append(left.pop())
            drawn.append(published.draw_each(config.dsa_strategy, len(batches[-1]), size, device))
        return batches, drawn

    def _differentiate(
        self, net: nn.Module, start: Tensor, target: Tensor, batches: Sequence[Tensor], drawn: Sequence[Drawn]
    ) -> Tensor:
        """Set the gradients of images and step size; returns the loss."""
        augmentations = [partial(published.augment, row=rows, operation=operation) for rows, operation in drawn]
        images, labels = self.images, self._problem.labels
        loss = mtt.loss(net, start, target, images, labels, self.step_size, batches, augmentations)
        self.images.grad = self.step_size.grad = None
        loss.backward()
        return loss.detach()


class PublishedTeslaLoop(PublishedTrajectoryLoop):
    """Iterations of TESLA: a first pass for the sum of the student's gradients, a second for those of the images."""

    def _differentiate(
        self, net: nn.Module, start: Tensor, target: Tensor, batches: Sequence[Tensor], drawn: Sequence[Drawn]
    ) -> Tensor:
        student = mtt.student_of(net)
        step_size, distance = self.step_size.item(), F.mse_loss(start, target, reduction="sum")
        parameters, total = [start.clone().requires_grad_()], torch.zeros_like(start)
        steps = []
        for rows, of_batch in zip(batches, drawn, strict=True):
            images, labels = self.images[rows], self._problem.labels[rows]
            x = published.augment(images, *of_batch)
            steps.append((rows, images, x.clone(), labels.clone()))
            cross_entropy = F.cross_entropy(student(parameters[-1], x), labels)
            # As published: with a graph that nobody uses.
            (gradient,) = torch.autograd.grad(cross_entropy, parameters[-1], create_graph=True)
            gradient = gradient.detach().clone()
            parameters.append(parameters[-1] - step_size * gradient)
            total += gradient
        self.images.grad = torch.zeros_like(self.images)
        for theta, (rows, images, x, labels) in zip(parameters[:-1], steps, strict=True):
            cross_entropy = F.cross_entropy(student(theta, x), labels)
            (gradient,) = torch.autograd.grad(cross_entropy, theta, create_graph=True)
            pull = step_size * (target - start) + step_size**2 * total
            (of_images,) = torch.autograd.grad(pull @ gradient / distance, images)
            # The paper's factor of 2. Published code multiplies a tuple by it, which only repeats the tuple, so its
            # images get one half of this; ours follow the paper.
            self.images.grad[rows] += 2 * of_images
        left = start - self.step_size * total - target
        loss = left.dot(left) / distance
        (self.step_size.grad,) = torch.autograd.grad(loss, self.step_size)
        return loss.detach()
