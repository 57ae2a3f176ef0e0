"""Whole iterations of NCFM and NCFM+FairDD."""

from typing import Any

import torch
from torch import Tensor

from fastdd.bench.baselines import published
from fastdd.bench.baselines.characteristic import BatchedNcfm, Draws, PublishedNcfm
from fastdd.bench.baselines.problem import Problem, TrajectoryProblem, random_dataset
from fastdd.bench.cases.steps import Step, Steps, convolutions, ours
from fastdd.bench.framework.case import Result
from fastdd.bench.framework.upstream import Upstream
from fastdd.bench.oracles import ORACLES
from fastdd.core import rng


class CharacteristicStep(Step):
    """An iteration of NCFM: the distances of all classes, then their cross-entropies, each class with a step of AdamW.

    What is compared are the first distances and their gradient (:class:`~fastdd.bench.cases.steps.Step`).
    """

    def _problem(self, classes: int, arch: str, seed: int, device: torch.device, quick: bool) -> Problem:
        size, batch, ipc = (8, 8, 2) if quick else (self._size, self._batch_real, self._ipc)
        settings: dict[str, Any] = {"width": 8, "depth": 2, "frequencies": 64} if quick else {"depth": 3, "width": 128}
        data = random_dataset(classes, self._groups, 2 * batch, size)
        return TrajectoryProblem.make(
            data,
            device,
            method="ncfm",
            debias=self._debias,
            ipc=ipc,
            batch_real=batch,
            seed=seed,
            arch=arch,
            **settings,
        )

    def shape(self, inputs: Steps) -> dict[str, int | list[int]]:
        return {**super().shape(inputs), "frequencies": inputs.problem.config.frequencies}

    def fastdd(self, inputs: Steps) -> Tensor:
        return inputs.of("fastdd", ours).step(next(inputs.numbers))

    def backends(self, code: Upstream | None) -> list[str]:
        return [name for name in super().backends(code) if name != "upstream"]

    def _batched(self, problem: TrajectoryProblem) -> BatchedNcfm:
        return BatchedNcfm(problem)

    def _published(self, problem: TrajectoryProblem) -> PublishedNcfm:
        return PublishedNcfm(problem)

    def truth(self, inputs: Steps) -> Result:
        return self._first_step(inputs, _first_truth)

    def check(self, backend: str, inputs: Steps, code: Upstream | None, truth: Result) -> list[float]:
        first = {
            "fastdd": _first_ours,
            "torch": lambda problem: self._batched(problem).gradient(draws_of(problem)),
            "reference-loop": lambda problem: self._published(problem).gradient(draws_of(problem)),
        }[backend]
        return self.errors(self._first_step(inputs, first), truth)

    def flops(self, inputs: Steps) -> int:
        """Convolutions, as of a step of DM on the decoded images, once more for these; and the phases."""
        config, classes = inputs.problem.config, inputs.problem.dataset.num_classes
        real, synthetic = self._images(inputs)
        synthetic *= config.factor**2
        of_image = super().flops(inputs) // (real + 2 * synthetic // config.factor**2)
        height, width = inputs.problem.dataset.size
        columns = (config.width or 128) * (height >> (config.depth or 3)) * (width >> (config.depth or 3))
        phases = 2 * config.frequencies * columns * (real + 3 * synthetic)
        return (real + 4 * synthetic) * of_image + phases * (classes > 0)

    def split_flops(self, inputs: Steps) -> int:
        """All convolutions but the first block's."""
        real, synthetic = self._images(inputs)
        return (real + 4 * inputs.problem.config.factor**2 * synthetic) * sum(convolutions(inputs.problem)[1:])


def draws_of(problem: TrajectoryProblem) -> Draws:
    """Those of our first iteration."""
    own, seed, classes = ours(problem), problem.config.seed, problem.dataset.num_classes
    net = own._networks.at(0)
    return Draws(
        own._draws.batch(rng.key(seed, "batch", 0), net).rows,
        own._augmentation(rng.lanes(rng.key(seed, "dsa", 0), classes)),
        own.frequencies(own.keys(0), range(classes)),
        {name: value.clone() for name, value in net.state_dict().items()},
    )


def _first_ours(problem: TrajectoryProblem) -> tuple[Tensor, Tensor]:
    own, found = ours(problem), []
    # Classes shrink before their turns, which baselines and the truth do after.
    own._turns.wait = lambda *_: None
    own._update = found.append
    loss = own.match(0)
    return found[0], loss


def _first_truth(problem: TrajectoryProblem) -> tuple[Tensor, Tensor]:
    """Gradient and loss of the first distances in float64, by the oracle."""
    draws, net, own = draws_of(problem), problem.network(), ours(problem)
    net.load_state_dict(draws.state)
    images = own.images.detach().clamp(0, 1).double().requires_grad_()

    def augmented(images: Tensor, rows: Tensor) -> Tensor:
        for row, operation in ((rows[0], "color"), (rows[1], "crop"), (rows[1], "cutout")):
            images = published.augment(images, row, operation)
        return images

    loss = ORACLES["ncfm"](
        net.to(problem.device, torch.float64),
        problem.real(torch.float64),
        problem.segments(draws.rows),
        own.formation(images),
        draws.params.double(),
        t=draws.t.double(),
        augmented=augmented,
    )
    return torch.autograd.grad(loss, images)[0], loss.detach()


_ABOUT = "an iteration of NCFM: 10 classes, 1,024 real images each, IPC 10 in 2x2 parts, 3x32x32, ConvNet"

CASES = [
    CharacteristicStep("step/ncfm", _ABOUT, batch_real=1024),
    CharacteristicStep("step/ncfm+fairdd", "the same with FairDD, 10 groups", debias="fairdd", batch_real=1024),
]
