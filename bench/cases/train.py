"""An epoch of a training recipe: plain, LfF and DFA."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from fastdd.bench.baselines.problem import random_dataset
from fastdd.bench.baselines.training import PlainTraining, PublishedTraining, TrainingProblem, trained
from fastdd.bench.cases.steps import Step
from fastdd.bench.framework.case import Case, Result
from fastdd.bench.framework.upstream import Upstream
from fastdd.training import TrainSettings

_IMAGES, _BATCH = 510, 256
_CHECKED_IMAGES, _CHECKED_BATCH = 90, 32


class Epochs:
    """What is timed and what is compared, and the trainings of all backends, each made when it is first asked for."""

    def __init__(self, timed: TrainingProblem, smooth: TrainingProblem):
        self.timed, self.smooth = timed, smooth
        self.number = 0
        self._made: dict[str, Any] = {}

    def of(self, backend: str, make: Any) -> Any:
        """The training of a backend."""
        if backend not in self._made:
            self._made[backend] = make()
        return self._made[backend]


class TrainingEpoch(Case):
    """An epoch of 510 images in two batches: 10 classes, 3x32x32, ConvNet, Adam, no augmentation.

    What is timed has random draws of its own. Compared is the change of all that is trained by an epoch of given draws,
    three batches, with a smooth activation and SGD: with ReLU, one activation that rounds to the other side of zero
    moves it a thousand times more than arithmetic does, and so does the sign of a gradient next to zero by which Adam
    steps.

    Args:
        training: the recipe.
        about: one line.
        constants: of the recipe, in place of its defaults.
    """

    variant: ClassVar[dict[str, int]] = {}
    memory = True

    def __init__(self, training: str, about: str, **constants: float):
        self.name, self.about = f"train/{training}", about
        self._training, self._constants = training, constants

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Epochs:
        sizes: dict[str, Any] = {"width": 8, "depth": 2} if quick else {}

        def problem(images: int, batch: int, arch: str, **settings: Any) -> TrainingProblem:
            data = random_dataset(4, 4, images // 4, 8) if quick else random_dataset(10, 10, images // 10)
            config = TrainSettings.configure(
                dataset=data.name,
                training=self._training,
                constants=self._constants,
                arch=arch,
                batch_train=batch,
                epochs=1,
                seed=seed,
                **sizes,
                **settings,
            )
            return TrainingProblem(config, data, device)

        count, batch = (24, 12) if quick else (_IMAGES, _BATCH)
        checked, of_checked = (24, 8) if quick else (_CHECKED_IMAGES, _CHECKED_BATCH)
        return Epochs(
            problem(count, batch, "ConvNet"),
            problem(checked, of_checked, "ConvNetASwish", optimiser="sgd", lr=0.01),
        )

    def shape(self, inputs: Epochs) -> dict[str, int | list[int]]:
        config = inputs.timed.config
        return {
            "images": list(inputs.timed.dataset.train.images.shape),
            "batch": config.batch_train,
            "width": config.width or 128,
            "depth": config.depth or 3,
        }

    def fastdd(self, inputs: Epochs) -> Tensor:
        inputs.number += 1
        return inputs.of("fastdd", inputs.timed.trainer).epoch(inputs.number)

    def plain(self, inputs: Epochs) -> None:
        inputs.of("torch", lambda: PlainTraining(inputs.timed)).epoch()

    def loop(self, inputs: Epochs) -> None:
        inputs.of("reference-loop", lambda: PublishedTraining(inputs.timed)).epoch()

    def truth(self, inputs: Epochs) -> Tensor:
        return _change(PublishedTraining(inputs.smooth, torch.float64), inputs.smooth)

    def check(self, backend: str, inputs: Epochs, code: Upstream | None, truth: Result) -> list[float]:
        problem = inputs.smooth
        if backend != "fastdd":
            make = {"torch": PlainTraining, "reference-loop": PublishedTraining}[backend]
            return self.errors(_change(make(problem), problem), truth)
        trainer = problem.trainer()
        trainer.epoch(0)
        return self.errors(_difference(trained(trainer), problem), truth)

    errors = Step.errors  # a change of parameters is one vector, as a gradient is

    def bytes(self, inputs: Epochs) -> int:
        """Images read; of every step, parameters, gradients and Adam's two moments read, all but gradients written."""
        problem = inputs.timed
        count, batch = len(problem.dataset.train), problem.config.batch_train
        parameters = sum(tensor.nbytes for state in problem.start.values() for tensor in state.values())
        return problem.dataset.train.images.nbytes + -(-count // batch) * 7 * parameters

    def flops(self, inputs: Epochs) -> int:
        """Convolutions: forward, to the weight, and to the input (but of the first), of every network."""
        problem = inputs.timed
        (height, columns), depth = problem.dataset.size, problem.config.depth or 3
        total = 0
        for state in problem.start.values():
            for block in range(depth if "weight" not in state else 0):
                filters = 2 * state[f"features.{4 * block}.weight"].numel()
                total += (3 if block else 2) * filters * (height >> block) * (columns >> block)
        return len(problem.dataset.train) * total


def _change(run: PublishedTraining, problem: TrainingProblem) -> Tensor:
    """The change of what a baseline trains by the epoch that is compared."""
    run.train(problem.drawn)
    return _difference(run.nets, problem)


def _difference(nets: dict[str, torch.nn.Module], problem: TrainingProblem) -> Tensor:
    return torch.cat(
        [
            (nets[name].state_dict()[key].double() - tensor).flatten().cpu()
            for name, state in problem.start.items()
            for key, tensor in state.items()
        ]
    )


CASES = [
    TrainingEpoch("erm", "an epoch of plain training: 510 images, 3x32x32, ConvNet, batch 256, Adam"),
    TrainingEpoch("lff", "the same of LfF: two networks, and images that count by their losses"),
    TrainingEpoch("dfa", "the same of DFA: two encoders, and features that are swapped", swap_from=0),
]
