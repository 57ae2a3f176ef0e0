"""Iterations of trajectory matching: exact by an adjoint sweep, through the graph of all steps, and TESLA."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastdd.bench.baselines import published
from fastdd.bench.baselines.batched_trajectory import BatchedTrajectories
from fastdd.bench.baselines.problem import TrajectoryProblem, random_dataset
from fastdd.bench.baselines.published_trajectory import PublishedTeslaLoop, PublishedTrajectoryLoop
from fastdd.bench.cases.steps import Step, Steps, convolutions, ours
from fastdd.bench.framework.case import FLOOR, Case, Result
from fastdd.bench.framework.upstream import Upstream
from fastdd.bench.oracles import mtt

# Steps of the student of which the first iteration is compared.
_CHECKED_STEPS = 3
# Of the step size's gradient, of the loss, and of the loss with ReLU: ten times the largest error seen in plain PyTorch
# (three seeds, full size and quick), as that of one number is next to nothing by chance. The loss is a sum of squared
# differences of parameters that lie 1e-3 from each other and are rounded at 1e-9.
_NUMBER_FLOORS = [2e-6, 3e-6, 8e-6]
# Of the images' gradient with ReLU, which one activation that rounds across zero moves by 1e-3: no measure of
# arithmetic, but wrong terms, as TESLA's, are ten times that and more.
_RELU_FLOOR = 1e-2


class TrajectoryStep(Case):
    """One iteration: a student's steps on batches of the synthetic images, the loss at its end, an update of the
    images and of its step size.

    What is compared is the first iteration with few steps: over many, networks in float32 part from those in float64.
    Gradients are compared with a smooth activation, as with ReLU an activation that rounds to the other side of zero
    moves them more than arithmetic does; the loss with both, and the images' gradient with ReLU coarsely. The published
    iteration is the same for exact and full: at
    50 steps its graph takes 9.4 GB (and that of full in plain PyTorch not much less), which must be free.

    Args:
        about: of the case.
        unroll: exact, full or tesla.
        steps: of the student.
    """

    memory = True

    def __init__(self, about: str, unroll: str, steps: int):
        self.name, self.about, self.variant = f"step/mtt/{unroll}", about, {"steps": steps}
        self._unroll, self._steps = unroll, steps

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Steps:
        checked = self._problem(_CHECKED_STEPS, "ConvNet", seed, device, quick)
        smooth = self._problem(_CHECKED_STEPS, "ConvNetASwish", seed, device, quick)
        steps = self._steps // 5 if quick else self._steps
        return Steps(self._problem(steps, "ConvNet", seed, device, quick), checked, smooth)

    def _problem(self, steps: int, arch: str, seed: int, device: torch.device, quick: bool) -> TrajectoryProblem:
        settings: dict[str, Any] = {"width": 8, "depth": 2, "ipc": 2} if quick else {"ipc": 10}
        return TrajectoryProblem.make(
            random_dataset(10, 1, 20, 16 if quick else 32),
            device,
            method="mtt",
            arch=arch,
            unroll=self._unroll,
            syn_steps=steps,
            batch_syn=10 if quick else 50,
            expert_epochs=1,
            max_start_epoch=1,
            lr_teacher=0.01,
            step_size="raw",
            zca=False,
            seed=seed,
            **settings,
        )

    def shape(self, inputs: Steps) -> dict[str, int | list[int]]:
        data, config = inputs.problem.dataset, inputs.problem.config
        return {
            "steps": config.syn_steps,
            "classes": data.num_classes,
            "ipc": config.ipc,
            "batch_syn": config.batch_syn,
            "image": [data.channels, *data.size],
            "width": config.width or 128,
            "depth": config.depth or 3,
        }

    def fastdd(self, inputs: Steps) -> Tensor:
        return inputs.of("fastdd", ours).step(next(inputs.numbers))

    def plain(self, inputs: Steps) -> Tensor:
        return inputs.of("torch", BatchedTrajectories).step()

    def loop(self, inputs: Steps) -> Tensor:
        return inputs.of("reference-loop", self._published).step()

    def _published(self, problem: TrajectoryProblem) -> PublishedTrajectoryLoop:
        return (PublishedTeslaLoop if self._unroll == "tesla" else PublishedTrajectoryLoop)(problem)

    def truth(self, inputs: Steps) -> Result:
        return _first_iteration(inputs, _first_truth)

    def check(self, backend: str, inputs: Steps, code: Upstream | None, truth: Result) -> list[float]:
        first = {
            "fastdd": _first_ours,
            "torch": lambda problem: _first(BatchedTrajectories(problem), problem),
            "reference-loop": lambda problem: _first(self._published(problem), problem),
        }[backend]
        return self.errors(_first_iteration(inputs, first), truth)

    errors = Step.errors  # a gradient is one vector

    def floors(self, results: int) -> list[float]:
        return [FLOOR, *_NUMBER_FLOORS, _RELU_FLOOR]

    def bytes(self, inputs: Steps) -> int:
        """Synthetic images and their momentum read and written; the expert's parameters read."""
        return 4 * inputs.problem.images.nbytes + inputs.problem.experts.values.nbytes

    def flops(self, inputs: Steps) -> int:
        """Products of every convolution, if no graph is made twice. Forward, to its input, to its weight; then back
        through the weight's gradient (to both of its factors), through the input's, and to the input. From the second
        step on, but for TESLA, also to the weight, in both."""
        config = inputs.problem.config
        first, *others = convolutions(inputs.problem)  # the first convolution's input needs no gradient but the last
        to_weights = 0 if self._unroll == "tesla" else first + 2 * sum(others)
        steps = config.syn_steps
        return config.batch_syn * (steps * (5 * first + 7 * sum(others)) + (steps - 1) * to_weights)


def _first_iteration(inputs: Steps, first) -> Result:
    """Gradients and loss with the smooth network; loss and images' gradient with ReLU."""
    to_images, _, loss = first(inputs.relu)
    return *first(inputs.smooth), loss, to_images


def _first(
    steps: PublishedTrajectoryLoop | BatchedTrajectories, problem: TrajectoryProblem
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients and loss of a baseline, of our first draws."""
    drawn = problem.first_trajectory
    return steps.gradients(drawn.batches, [(rows, published.operation_of_each(rows)) for rows in drawn.params])


def _first_truth(problem: TrajectoryProblem) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients and loss of the first iteration in float64, by the oracle."""
    device, double, drawn = problem.device, torch.float64, problem.first_trajectory
    images = problem.images.to(device, double, copy=True).requires_grad_()
    step_size = torch.tensor(problem.config.lr_teacher, dtype=double, device=device, requires_grad=True)
    start, target = (problem.experts.at(0, epoch, device).to(double) for epoch in (0, 1))
    augmentations = [
        partial(published.augment, row=rows, operation=published.operation_of_each(rows)) for rows in drawn.params
    ]
    net = problem.network().to(device, double)
    arguments = net, start, target, images, problem.labels, step_size, drawn.batches, augmentations
    if problem.config.unroll == "tesla":
        loss, of_images, of_step_size = mtt.tesla_gradients(*arguments)
        return of_images, of_step_size, loss
    loss = mtt.loss(*arguments)
    return *torch.autograd.grad(loss, [images, step_size]), loss.detach()


def _first_ours(problem: TrajectoryProblem) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients and loss of our first step; the momenta are then the gradients."""
    own = ours(problem)
    loss = own.step(0)
    return own.momentum, own.state()["step_size_momentum"], loss


CASES = [
    TrajectoryStep(about, unroll, steps)
    for unroll, about in (
        ("exact", "an iteration of MTT by an adjoint sweep: 10 classes, IPC 10, batches of 50, 3x32x32, ConvNet"),
        ("full", "the same through the graph of all steps"),
        ("tesla", "the same with TESLA's approximation"),
    )
    for steps in (10, 20, 50)
]
