"""Matching steps of IDC, FairDD's IDC and DREAM."""

from typing import Any

import torch
from torch import Tensor, nn

from fastdd import ops
from fastdd.bench.baselines import published
from fastdd.bench.baselines.multi_formation import (
    BatchedFormationSteps,
    BatchedRepresentatives,
    InTurn,
    PublishedFormationLoop,
    PublishedRepresentatives,
    in_turn,
    parts,
)
from fastdd.bench.baselines.problem import Problem
from fastdd.bench.cases.gradient_steps import GradientStep
from fastdd.bench.cases.steps import Steps, convolutions, ours
from fastdd.bench.framework.case import Result
from fastdd.bench.framework.upstream import Upstream
from fastdd.bench.oracles import idc
from fastdd.core import rng
from fastdd.data import Dataset
from fastdd.methods.dream import Dream

# IDC's for colour photographs. Absolute differences have a kink wherever two gradients agree, which rounding crosses.
_METRIC = "mse"


class FormationStep(GradientStep):
    """One matching step of every class on stored images of 2 x 2 parts, as :class:`GradientStep`; the published code
    steps its optimiser class by class, in which others coast."""

    def __init__(self, name: str, about: str, method: str = "idc", **sizes: Any):
        super().__init__(name, about, method, **{"batch_real": 64, **sizes})

    def _settings(self, data: Dataset, seed: int) -> dict[str, Any]:
        return {**super()._settings(data, seed), "metric": _METRIC, "init": "real"}

    def _batched(self, problem: Problem) -> BatchedFormationSteps:
        return BatchedFormationSteps(problem)

    def _published(self, problem: Problem) -> PublishedFormationLoop:
        return PublishedFormationLoop(problem)

    def backends(self, code: Upstream | None) -> list[str]:
        return super().backends(None)

    def truth(self, inputs: Steps) -> Result:
        return self._first_step(inputs, lambda problem: _truth(problem, _first_rows(problem)))

    def check(self, backend: str, inputs: Steps, code: Upstream | None, truth: Result) -> list[float]:
        return self.errors(self._first_step(inputs, getattr(self, f"_of_{backend.replace('-', '_')}")), truth)

    def _of_torch(self, problem: Problem) -> tuple[Tensor, Tensor]:
        net = problem.network()
        net.load_state_dict(problem.first_step.state)
        net, rows = net.to(problem.device, memory_format=torch.channels_last), _first_rows(problem)
        counts = [len(rows) // problem.dataset.num_classes] * problem.dataset.num_classes
        return self._batched(problem).gradient(net, rows, counts, _augmentations(problem))

    def _of_reference_loop(self, problem: Problem) -> tuple[Tensor, Tensor]:
        loop = self._published(problem)
        net = loop.network()
        net.load_state_dict(problem.first_step.state)
        net = net.to(problem.device).requires_grad_(False)
        return loop.gradient(net, _first_rows(problem), _augmentations(problem))

    @staticmethod
    def _of_fastdd(problem: Problem) -> tuple[Tensor, Tensor]:
        """Our first step. Its momentum is the gradient, but of classes that coasted after their own step."""
        own, config, classes = ours(problem), problem.config, problem.dataset.num_classes
        loss = own.match(0)
        coasted = torch.arange(classes - 1, -1, -1).repeat_interleave(config.ipc).view(-1, 1, 1, 1)
        return own.momentum / config.momentum ** coasted.to(own.momentum.device), loss

    def _images(self, inputs: Steps) -> tuple[int, int]:
        real, synthetic = super()._images(inputs)
        return real, synthetic * inputs.problem.config.factor**2


class RepresentativeStep(FormationStep):
    """A matching step of DREAM that finds its real images: all of a class through the network, and k-means.

    Published code does so every ten steps, and waits for it. Where k-means begins is drawn, so that the images that are
    compared are ours for all.
    """

    def __init__(self, name: str, about: str, **sizes: Any):
        super().__init__(name, about, "dream", **{"batch_real": 128, **sizes})

    def _settings(self, data: Dataset, seed: int) -> dict[str, Any]:
        return {**super()._settings(data, seed), "interval": 1}

    def _batched(self, problem: Problem) -> BatchedRepresentatives:
        return BatchedRepresentatives(problem)

    def _published(self, problem: Problem) -> PublishedRepresentatives:
        return PublishedRepresentatives(problem)

    def flops(self, inputs: Steps) -> int:
        """Those of the matching, and of all images forward, of which representatives are found."""
        return super().flops(inputs) + len(inputs.problem.dataset.train) * sum(convolutions(inputs.problem))


def _first_rows(problem: Problem) -> Tensor:
    """Real images of our first step, class by class."""
    if problem.config.method == "dream":
        own = ours(problem)
        assert isinstance(own, Dream)
        return own._batch(0, own._networks.at(0)).rows
    return problem.first_step.rows


def _augmentations(problem: Problem) -> list[InTurn]:
    """Those of our first step: of every class its operations, one after another."""
    keys = rng.lanes(rng.key(problem.config.seed, "dsa", 0), problem.dataset.num_classes)
    return [in_turn(row) for row in ops.idc_params(problem.config.dsa_strategy, keys, problem.dataset.size)]


def _truth(problem: Problem, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient in the pixels, and loss, of the first step in float64, by IDC's oracle."""
    data, device = problem.dataset, problem.device
    net: nn.Module = problem.network()
    net.load_state_dict(problem.first_step.state)
    mean, std = (
        torch.tensor(values, dtype=torch.float64, device=device).view(-1, 1, 1) for values in (data.mean, data.std)
    )
    pixels = (problem.images.to(device, torch.float64) * std + mean).requires_grad_()
    per_class = pixels.chunk(data.num_classes)
    seen = torch.cat([parts(of_class, problem.config.factor) for of_class in per_class])

    def augmented(images: Tensor, turns: InTurn) -> Tensor:
        for row, operation in turns:
            images = published.augment(images, row, operation)
        return images

    loss = idc.loss(
        net.to(device, torch.float64).requires_grad_(),
        problem.real(torch.float64),
        problem.segments(rows),
        (seen - mean) / std,
        _augmentations(problem),
        metric=problem.config.metric,
        augmented=augmented,
    )
    return torch.autograd.grad(loss, pixels)[0], loss.detach()


_SIZES = "10 classes, {} real images each, IPC 10 of 2 x 2 parts, 3x32x32, ConvNet"
CASES = [
    FormationStep("step/idc", f"a matching step of IDC: {_SIZES.format(64)}"),
    FormationStep("step/idc+fairdd", "the same with FairDD, 10 groups", debias="fairdd"),
    RepresentativeStep(
        "step/dream",
        f"a step of DREAM that finds representatives among 256 images a class: {_SIZES.format(128)}",
    ),
]
