"""Matching steps of DC, DSA, FairDD's DC and KDE-weighted DSA, and the network's training between them."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastdd.bench.baselines.batched_gradient import BatchedGradientSteps
from fastdd.bench.baselines.problem import Problem, random_dataset
from fastdd.bench.baselines.published_gradient import PublishedGradientLoop
from fastdd.bench.baselines.upstream import UpstreamGradientLoop
from fastdd.bench.cases.steps import Step, Steps, convolutions, ours
from fastdd.bench.framework.case import FLOOR, Case, Result
from fastdd.bench.framework.upstream import Upstream
from fastdd.data import Dataset
from fastdd.methods import Method

# Classes of the steps that are compared at full size: published code takes 5 s a class with ten groups, fp64 3 s.
_CHECKED_CLASSES = 2
# Of the loss with the smooth activation and with ReLU, ten times what was seen in plain PyTorch: one ReLU that rounds
# to the other side of zero moves the cosines of whole rows.
_LOSS_FLOORS = [2e-6, 4e-4]
# Of the network's training that is timed; published code has 50 between two matching steps at IPC 10.
_EPOCHS = 10


class GradientStep(Step):
    """One matching step: a real batch of every class, the gradients of both sides, their distance, an update.

    The network is made once by the baselines and every ten steps by ours; its training between steps is a case of its
    own. Compared are the first steps of fewer classes than are timed, each with all its images and groups.

    Args:
        name, about, debias, variant, classes, groups, batch_real, ipc: as those of Step.
        method: dc or dsa.
    """

    def __init__(self, name: str, about: str, method: str, **sizes: Any):
        super().__init__(name, about, **sizes)
        self._method = method

    def _checked_classes(self) -> int:
        return min(_CHECKED_CLASSES, self._classes)

    def _settings(self, data: Dataset, seed: int) -> dict[str, Any]:
        return {**super()._settings(data, seed), "method": self._method}

    def _batched(self, problem: Problem) -> BatchedGradientSteps:
        return BatchedGradientSteps(problem)

    def _published(self, problem: Problem) -> PublishedGradientLoop:
        return PublishedGradientLoop(problem)

    def _upstream(self, problem: Problem, code: Upstream) -> UpstreamGradientLoop:
        return UpstreamGradientLoop(problem, code)

    @staticmethod
    def _first_step(inputs: Steps, first: Callable[[Problem], tuple[Tensor, Tensor]]) -> Result:
        """Gradient and loss with the smooth network, loss with ReLU."""
        return *first(inputs.smooth), first(inputs.relu)[1]

    def floors(self, results: int) -> list[float]:
        return [FLOOR, *_LOSS_FLOORS]

    def flops(self, inputs: Steps) -> int:
        """Products of every convolution. Real images: forward, to its input, to its weight. Synthetic ones: those; then
        back through the weight's gradient (to both of its factors), through the input's, and to the pixels."""
        real, synthetic = self._images(inputs)
        first, *others = convolutions(inputs.problem)  # the first convolution's input needs no gradient but the last
        return real * (2 * first + 3 * sum(others)) + synthetic * (5 * first + 7 * sum(others))

    def split_flops(self, inputs: Steps) -> int:
        """Of all but the first block: forward and to the input, of synthetic images twice. Gradients of weights, and
        what goes through them, are products of segments."""
        real, synthetic = self._images(inputs)
        return (2 * real + 4 * synthetic) * sum(convolutions(inputs.problem)[1:])


class Training(Case):
    """The network's training on the synthetic images: SGD on all of them in random order, no augmentation.

    Compared is the change of the parameters by a first training, with a smooth activation: the order of images within
    a batch only changes rounding, and at IPC 10 the ten classes are one batch.
    """

    name = "step/dc-inner"
    about = f"DC's training of the network between two matching steps, {_EPOCHS} epochs of 10 classes, IPC 10"
    variant: ClassVar[dict[str, int]] = {}
    memory = True

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Steps:
        data = random_dataset(10, 1, 32, 16 if quick else 32)
        settings: dict[str, Any] = {"method": "dc", "ipc": 10, "inner_loop": 3 if quick else _EPOCHS, "seed": seed}
        settings |= {"width": 8, "depth": 2} if quick else {}
        relu, smooth = (Problem.make(data, device, arch=arch, **settings) for arch in ("ConvNet", "ConvNetASwish"))
        return Steps(relu, relu, smooth)

    def shape(self, inputs: Steps) -> dict[str, int | list[int]]:
        config = inputs.problem.config
        return {
            "images": list(inputs.problem.images.shape),
            "epochs": config.inner_loop,
            "batch": config.batch_train,
            "width": config.width or 128,
            "depth": config.depth or 3,
        }

    def fastdd(self, inputs: Steps) -> None:
        inputs.of("fastdd", _our_training)(next(inputs.numbers))

    def plain(self, inputs: Steps) -> None:
        inputs.of("torch", BatchedGradientSteps).train()

    def loop(self, inputs: Steps) -> None:
        inputs.of("reference-loop", PublishedGradientLoop).train()

    def truth(self, inputs: Steps) -> Tensor:
        return _trained(PublishedGradientLoop(inputs.smooth, torch.float64), inputs.smooth)

    def check(self, backend: str, inputs: Steps, code: Upstream | None, truth: Result) -> list[float]:
        if backend == "fastdd":
            own, start = ours(inputs.smooth), inputs.smooth.first_step.state
            own.restore(own.state() | {f"net.{name}": tensor for name, tensor in start.items()})
            _training_of(own)(0)
            trained = own.state()
            return self.errors(_change([trained[f"net.{name}"] for name in start], [*start.values()]), truth)
        make = {"torch": BatchedGradientSteps, "reference-loop": PublishedGradientLoop}[backend]
        return self.errors(_trained(make(inputs.smooth), inputs.smooth), truth)

    errors = Step.errors  # a change of parameters is one vector, as a gradient is

    def bytes(self, inputs: Steps) -> int:
        """Images read; parameters read and written."""
        return inputs.problem.images.nbytes + 2 * sum(p.nbytes for p in inputs.problem.network().parameters())

    def flops(self, inputs: Steps) -> int:
        """Convolutions: forward, to the weight, and to the input (but of the first)."""
        first, *others = convolutions(inputs.problem)
        return inputs.problem.config.inner_loop * len(inputs.problem.images) * (2 * first + 3 * sum(others))


def _training_of(method: Method) -> Callable[[int], object]:
    """The network's training, the second part of our iterations; called with a count."""
    _, training = method.parts()
    return training.call


def _our_training(problem: Problem) -> Callable[[int], object]:
    return _training_of(ours(problem))


def _trained(steps: BatchedGradientSteps | PublishedGradientLoop, problem: Problem) -> Tensor:
    """The change of the network's parameters by one training from the first step's."""
    start = problem.first_step.state
    steps.net.load_state_dict(start)
    steps.train()
    return _change([*steps.net.state_dict().values()], [*start.values()])


def _change(after: list[Tensor], before: list[Tensor]) -> Tensor:
    return torch.cat([(a.double() - b.to(a.device)).flatten() for a, b in zip(after, before, strict=True)])


CASES = [
    GradientStep("step/dc", "a matching step of DC: 10 classes, 256 real images each, IPC 10, 3x32x32, ConvNet", "dc"),
    GradientStep("step/dc+fairdd", "the same with FairDD, 10 groups", "dc", debias="fairdd"),
    GradientStep("step/dsa", "a matching step of DSA", "dsa"),
    GradientStep("step/dsa+kde", "a matching step of DSA with weighted real images", "dsa", debias="kde"),
    GradientStep(
        "scale/groups-dc",
        "a matching step of DC against protected groups, 0 being none",
        "dc",
        variant={"groups": 0},
        by_name=True,
    ),
    *(
        GradientStep(
            "scale/groups-dc",
            "a matching step of DC against protected groups",
            "dc",
            debias="fairdd",
            variant={"groups": n},
            groups=n,
            by_name=True,
        )
        for n in (2, 4, 6, 8, 10)
    ),
    *(
        GradientStep(
            f"scale/size-dc{'+fairdd' * fair}",
            f"a matching step of DC{' with FairDD' * fair} on 2 classes of 2 groups against the images' side",
            "dc",
            debias="fairdd" if fair else "none",
            variant={"pixels": n},
            classes=2,
            groups=2,
            size=n,
            by_name=True,
        )
        for fair in (False, True)
        for n in (32, 64, 96)
    ),
    Training(),
]
