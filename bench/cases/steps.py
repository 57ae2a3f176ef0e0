"""Whole steps of DM and DM+FairDD, and how their time grows with groups, batch, IPC and classes."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastdd import debias
from fastdd.bench.baselines import published
from fastdd.bench.baselines.attention import BatchedAttentionSteps, PublishedAttentionLoop
from fastdd.bench.baselines.batched import BatchedSteps
from fastdd.bench.baselines.problem import Problem, TrajectoryProblem, random_dataset
from fastdd.bench.baselines.published import PublishedLoop
from fastdd.bench.baselines.upstream import UpstreamAttentionLoop, UpstreamLoop
from fastdd.bench.framework.case import FLOOR, Case, Result, pairs
from fastdd.bench.framework.upstream import Upstream
from fastdd.bench.oracles import ORACLES
from fastdd.core import rng
from fastdd.data import Dataset
from fastdd.methods import Context, Method, method

# The loss is one number, whose error in plain PyTorch is next to nothing by chance: it is held to ten times what was
# seen in float32, and in bfloat16 to one rounding of an embedding.
_LOSS_FLOORS = {torch.float32: 2e-6, torch.bfloat16: torch.finfo(torch.bfloat16).eps / 2}


class Steps:
    """The steppers of all backends, each made when it is first asked for.

    Attributes:
        problem: of the steps that are timed.
        relu, smooth: of the first steps that are compared.
        numbers: of our steps.
    """

    def __init__(self, problem: Problem, relu: Problem, smooth: Problem):
        self.problem, self.relu, self.smooth = problem, relu, smooth
        self.numbers = itertools.count()
        self._steppers: dict[str, Any] = {}

    def of(self, backend: str, make: Callable[[Problem], Any]) -> Any:
        """The stepper of a backend."""
        if backend not in self._steppers:
            self._steppers[backend] = make(self.problem)
        return self._steppers[backend]


def ours(problem: Problem) -> Method:
    """Our stepper of a problem."""
    experts = problem.experts if isinstance(problem, TrajectoryProblem) else None
    context = Context(problem.dataset, problem.device, problem.images, problem.weights, experts)
    return method(problem.config.method)(problem.config, context)


class Step(Case):
    """One step: a fresh network, a real batch of every class, augmentation, loss, gradient, update of the images.

    What is timed has random draws of its own, so what is compared is the first step: the gradient of the images with a
    smooth activation, and the loss with ReLU. With ReLU, a single activation that rounds to the other side of zero
    moves the gradient by 1e-3, in any implementation, a thousand times what arithmetic does; the loss hardly moves.

    Args:
        name, about, variant: of the case.
        debias: a mode of :data:`fastdd.debias.MODES`.
        classes, groups, batch_real, ipc, size: sizes; images are 3 x size x size, the network is ConvNet of width 128
            and the published depth, 3 for images of 32x32 and one more for each doubling.
        by_name: of :class:`Case`.
        dtype: of the real side; bfloat16 needs a run's ``precision``.
    """

    memory = True
    smooth = "ConvNetASwish"

    def __init__(
        self,
        name: str,
        about: str,
        *,
        debias: str = "none",
        variant: dict[str, int] | None = None,
        classes: int = 10,
        groups: int = 10,
        batch_real: int = 256,
        ipc: int = 10,
        size: int = 32,
        dtype: torch.dtype = torch.float32,
        by_name: bool = False,
    ):
        self.by_name = by_name
        self.name, self.about, self.variant, self.dtype = name, about, variant or {}, dtype
        self._debias, self._classes, self._groups = debias, classes, groups
        self._batch_real, self._ipc, self._size = batch_real, ipc, size

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Steps:
        timed = self._problem(self._classes, "ConvNet", seed, device, quick)
        checked = self._classes if quick else self._checked_classes()
        relu = timed if checked == self._classes else self._problem(checked, "ConvNet", seed, device, quick)
        return Steps(timed, relu, self._problem(checked, self.smooth, seed, device, quick))

    def _checked_classes(self) -> int:
        return self._classes

    def _problem(self, classes: int, arch: str, seed: int, device: torch.device, quick: bool) -> Problem:
        settings: dict[str, Any] = {"width": 8, "depth": 2} if quick else {"depth": int(math.log2(self._size)) - 2}
        batch = self._batch_real // 16 if quick else self._batch_real
        if self.dtype == torch.bfloat16:
            settings["precision"] = "bf16"
        size = self._size // 2 if quick else self._size
        data = random_dataset(classes, self._groups, 2 * max(batch, self._ipc), size)
        settings |= {"debias": self._debias, "ipc": self._ipc, "batch_real": batch, "seed": seed, "arch": arch}
        return Problem.make(data, device, **settings, **self._settings(data, seed))

    def _settings(self, data: Dataset, seed: int) -> dict[str, Any]:
        """What else a run on this data needs."""
        if debias.mode(self._debias).needs != "weights":
            return {}
        # A tenth of the images has more than half of the weight.
        return {"weights": (1.5 * rng.normal(rng.key(seed, "weights"), len(data.train.labels))).exp()}

    def shape(self, inputs: Steps) -> dict[str, int | list[int]]:
        data, config = inputs.problem.dataset, inputs.problem.config
        return {
            "classes": data.num_classes,
            "groups": data.num_groups if config.mode.needs == "groups" else 0,
            "batch_real": config.batch_real,
            "ipc": config.ipc,
            "image": [data.channels, *data.size],
            "width": config.width or 128,
            "depth": config.depth or 3,
        }

    def fastdd(self, inputs: Steps) -> Tensor:
        return inputs.of("fastdd", ours).match(next(inputs.numbers))

    def plain(self, inputs: Steps) -> Tensor:
        return inputs.of("torch", self._batched).step()

    def loop(self, inputs: Steps) -> Tensor:
        return inputs.of("reference-loop", self._published).step()

    def upstream(self, inputs: Steps, code: Upstream) -> Tensor:
        return inputs.of("upstream", lambda problem: self._upstream(problem, code)).step()

    # What the baselines are made of.

    def _batched(self, problem: Problem) -> BatchedSteps:
        return BatchedSteps(problem, self.dtype)

    def _published(self, problem: Problem) -> PublishedLoop:
        return PublishedLoop(problem)

    def _upstream(self, problem: Problem, code: Upstream) -> UpstreamLoop:
        return UpstreamLoop(problem, code)

    def truth(self, inputs: Steps) -> Result:
        return self._first_step(inputs, first_truth)

    def check(self, backend: str, inputs: Steps, code: Upstream | None, truth: Result) -> list[float]:
        if backend == "upstream":
            return self._check_upstream(inputs, code)
        first = {
            "fastdd": _first_ours,
            "torch": self._first_batched,
            "reference-loop": lambda problem: _first_published(self._published(problem), problem),
        }[backend]
        return self.errors(self._first_step(inputs, first), truth)

    def _check_upstream(self, inputs: Steps, code: Upstream) -> list[float]:
        """Upstream draws its augmentation itself, so the truth is that of its draws."""
        problem = inputs.relu
        seeds = list(range(problem.config.seed, problem.config.seed + problem.dataset.num_classes))

        def truth(problem: Problem) -> tuple[Tensor, Tensor]:
            strategy, size = problem.config.dsa_strategy, problem.dataset.size
            drawn = [published.draw(strategy, seed, size, problem.device) for seed in seeds]
            return first_truth(problem, drawn)

        def theirs(problem: Problem) -> tuple[Tensor, Tensor]:
            return _first_published(self._upstream(problem, code), problem, seeds)

        return self.errors(self._first_step(inputs, theirs), self._first_step(inputs, truth))

    def _first_batched(self, problem: Problem) -> tuple[Tensor, Tensor]:
        first, net = problem.first_step, problem.network()
        net.load_state_dict(first.state)
        net = net.to(problem.device, memory_format=torch.channels_last)
        return self._batched(problem).gradient(net, first.rows, first.per_class, _augmentations(problem))

    @staticmethod
    def _first_step(inputs: Steps, first) -> Result:
        """Gradient with the smooth network, loss with ReLU."""
        return first(inputs.smooth)[0], first(inputs.relu)[1]

    def errors(self, results: Result, truth: Result) -> list[float]:
        """Relative to the norm: a gradient is one vector."""
        return [((a.double() - b).norm() / b.norm()).item() for a, b in pairs(results, truth)]

    def floors(self, results: int) -> list[float]:
        return [FLOOR, _LOSS_FLOORS[self.dtype]]

    def bytes(self, inputs: Steps) -> int:
        """Real pixels as bytes; synthetic images and their momentum read and written; parameters read."""
        problem = inputs.problem
        real = self._images(inputs)[0] * problem.dataset.channels * problem.dataset.size[0] * problem.dataset.size[1]
        return real + 4 * problem.images.nbytes + sum(p.nbytes for p in problem.network().parameters())

    def flops(self, inputs: Steps) -> int:
        """Convolutions: the real and the synthetic images forward, the synthetic ones back to their pixels."""
        real, synthetic = self._images(inputs)
        return (real + 2 * synthetic) * sum(convolutions(inputs.problem))

    def split_flops(self, inputs: Steps) -> int:
        """All but the first block's; none where the real side is bfloat16, which hides the rest."""
        real, synthetic = self._images(inputs)
        wide = self.dtype == torch.float32
        return wide * (real + 2 * synthetic) * sum(convolutions(inputs.problem)[1:])

    def _images(self, inputs: Steps) -> tuple[int, int]:
        config, classes = inputs.problem.config, inputs.problem.dataset.num_classes
        return classes * config.batch_real, classes * config.ipc


class LargeStep(Step):
    """A step of DM on many classes or large images: checked on few classes, and without baselines that take minutes.

    Its real batch is a sixteenth of the published one, and there is one synthetic image a class: time and memory should
    grow with classes and with pixels as they do with more. What the step does to a class is the same bits whichever
    other classes there are, which tests hold it to, so that a few say whether all are right.
    """

    def __init__(self, name: str, about: str, *, classes: int, size: int):
        variant = {"classes": classes} if name.endswith("classes") else {"pixels": size}
        super().__init__(name, about, variant=variant, classes=classes, batch_real=16, ipc=1, size=size)

    def _problem(self, classes: int, arch: str, seed: int, device: torch.device, quick: bool) -> Problem:
        return super()._problem(classes // 5 if quick else classes, arch, seed, device, quick)

    def _checked_classes(self) -> int:
        return 2

    def backends(self, code: Upstream | None) -> list[str]:
        return [name for name in super().backends(code) if name in ("torch", "fastdd")]


class AttentionStep(Step):
    """A step of DataDAM, whose absolute features have a kink in every smooth activation but those above 0."""

    smooth = "ConvNetAS"

    def _settings(self, data: Dataset, seed: int) -> dict[str, Any]:
        return {**super()._settings(data, seed), "method": "datadam"}

    def _batched(self, problem: Problem) -> BatchedAttentionSteps:
        return BatchedAttentionSteps(problem, self.dtype)

    def _published(self, problem: Problem) -> PublishedAttentionLoop:
        return PublishedAttentionLoop(problem)

    def _upstream(self, problem: Problem, code: Upstream) -> UpstreamAttentionLoop:
        return UpstreamAttentionLoop(problem, code)


def convolutions(problem: Problem) -> list[int]:
    """Arithmetic of every convolution of an image."""
    width, (height, columns) = problem.config.width or 128, problem.dataset.size
    return [
        2 * 9 * (width if block else problem.dataset.channels) * width * (height >> block) * (columns >> block)
        for block in range(problem.config.depth or 3)
    ]


def _first_ours(problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradient and loss of our first step; the momentum is then the gradient."""
    own = ours(problem)
    loss = own.match(0)
    return own.momentum, loss


def _first_published(loop: PublishedLoop, problem: Problem, drawn: list | None = None) -> tuple[Tensor, Tensor]:
    """Gradient and loss of a published loop, of our first draws, or of other augmentations."""
    first, net = problem.first_step, loop.network()
    drawn = _augmentations(problem) if drawn is None else drawn
    net.load_state_dict(first.state)
    return loop.gradient(net.to(problem.device).requires_grad_(False), first.rows, drawn)


def first_truth(problem: Problem, drawn: list[tuple[Tensor, str]] | None = None) -> tuple[Tensor, Tensor]:
    """Gradient and loss of the first step in float64, by the method's oracle."""
    first, net = problem.first_step, problem.network()
    net.load_state_dict(first.state)
    images = problem.images.to(problem.device, torch.float64, copy=True).requires_grad_()
    loss = ORACLES[problem.config.method](
        net.to(problem.device, torch.float64).requires_grad_(),
        problem.real(torch.float64),
        problem.segments(first.rows),
        images,
        _augmentations(problem) if drawn is None else drawn,
        augmented=lambda x, augmentation: published.augment(x, *augmentation),
    )
    return torch.autograd.grad(loss, images)[0], loss.detach()


def _augmentations(problem: Problem) -> list[tuple[Tensor, str]]:
    """Those of our first step, as baselines take them."""
    return [(row, published.operation_of(row)) for row in problem.first_step.params]


CASES = [
    Step("step/dm", "a step of DM: 10 classes, 256 real images each, IPC 10, 3x32x32, ConvNet"),
    Step("step/dm+fairdd", "the same with FairDD, 10 groups", debias="fairdd"),
    Step("step/dm-bf16", "a step of DM with the real side in bfloat16", dtype=torch.bfloat16),
    AttentionStep(
        "step/datadam",
        "a step of DataDAM: 10 classes, 64 real images each, IPC 10, 3x32x32, ConvNet",
        batch_real=64,
    ),
    AttentionStep("step/datadam+fairdd", "the same with FairDD, 10 groups", debias="fairdd", batch_real=64),
    Step("scale/groups", "a step against protected groups, 0 being vanilla DM", variant={"groups": 0}),
    *(
        Step("scale/groups", "a step against protected groups", debias="fairdd", variant={"groups": n}, groups=n)
        for n in (2, 4, 6, 8, 10)
    ),
    *(
        Step(
            f"scale/size-dm{'+fairdd' * fair}",
            f"a step of DM{' with FairDD' * fair} on 2 classes of 2 groups against the images' side",
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
    *(
        Step("scale/batch", "a step of DM against the real batch", variant={"batch_real": n}, batch_real=n)
        for n in (64, 128, 256, 512)
    ),
    *(Step("scale/ipc", "a step of DM against images per class", variant={"ipc": n}, ipc=n) for n in (1, 10, 50)),
    *(
        LargeStep("scale/classes", "a step of DM against classes, at Tiny-ImageNet's 3x64x64", classes=n, size=64)
        for n in (10, 50, 200)
    ),
    *(
        LargeStep("scale/pixels", "a step of DM on 10 classes against the images' side", classes=10, size=n)
        for n in (32, 64, 128)
    ),
]
