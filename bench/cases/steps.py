"""Whole steps of DM and DM+FairDD, and how their time grows with groups, batch, IPC and classes."""

import itertools
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fastdd.bench.batched import BatchedSteps
from fastdd.bench.case import FLOOR, Case, Result, pairs
from fastdd.bench.problem import Problem, random_dataset
from fastdd.bench.published import PublishedLoop, draw, operation_of
from fastdd.bench.upstream import Upstream, UpstreamLoop
from fastdd.session.stepper import Stepper, make

# The loss is one number, whose error in plain PyTorch is next to nothing by chance: it is held to ten times what was
# seen in float32, and in bfloat16 to one rounding of an embedding.
_LOSS_FLOORS = {torch.float32: 2e-6, torch.bfloat16: torch.finfo(torch.bfloat16).eps / 2}


class Steps:
    """The steppers of all backends, each made when it is first asked for."""

    def __init__(self, problem: Problem, smooth: Problem, dtype: torch.dtype):
        self.problem, self.smooth = problem, smooth
        self._dtype, self._number, self._upstream = dtype, itertools.count(), None

    def fastdd_step(self) -> Tensor:
        return self._fastdd.step(next(self._number))

    @cached_property
    def _fastdd(self) -> Stepper:
        problem = self.problem
        return make(problem.config, problem.dataset, problem.device, problem.images)

    @cached_property
    def batched(self) -> BatchedSteps:
        return BatchedSteps(self.problem, self._dtype)

    @cached_property
    def published(self) -> PublishedLoop:
        return PublishedLoop(self.problem)

    def upstream(self, code: Upstream) -> UpstreamLoop:
        self._upstream = self._upstream or UpstreamLoop(self.problem, code)
        return self._upstream


class Step(Case):
    """One step: a fresh network, a real batch of every class, augmentation, loss, gradient, update of the images.

    What is timed has random draws of its own, so what is compared is the first step: the gradient of the images with a
    smooth activation, and the loss with ReLU. With ReLU, a single activation that rounds to the other side of zero
    moves the gradient by 1e-3, in any implementation, a thousand times what arithmetic does; the loss hardly moves.

    Args:
        name, about, variant: of the case.
        debias: none or fairdd.
        classes, groups, batch_real, ipc: sizes; images are 3x32x32, the network is ConvNet (depth 3, width 128).
        dtype: of the real side; bfloat16 needs a run's ``precision``.
    """

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
        dtype: torch.dtype = torch.float32,
    ):
        self.name, self.about, self.variant, self.dtype = name, about, variant or {}, dtype
        self._debias, self._classes, self._groups = debias, classes, groups
        self._batch_real, self._ipc = batch_real, ipc

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Steps:
        settings: dict[str, Any] = {"width": 8, "depth": 2} if quick else {}
        batch = self._batch_real // 16 if quick else self._batch_real
        if self.dtype == torch.bfloat16:
            settings["precision"] = "bf16"
        data = random_dataset(self._classes, self._groups, 2 * max(batch, self._ipc), 16 if quick else 32)
        settings |= {"debias": self._debias, "ipc": self._ipc, "batch_real": batch, "seed": seed}
        relu, smooth = (Problem.make(data, device, arch=arch, **settings) for arch in ("ConvNet", "ConvNetASwish"))
        return Steps(relu, smooth, self.dtype)

    def shape(self, inputs: Steps) -> dict[str, int | list[int]]:
        data, config = inputs.problem.dataset, inputs.problem.config
        return {
            "classes": data.num_classes,
            "groups": 0 if self._debias == "none" else data.num_groups,
            "batch_real": config.batch_real,
            "ipc": config.ipc,
            "image": [data.channels, *data.size],
            "width": config.width or 128,
            "depth": config.depth or 3,
        }

    def fastdd(self, inputs: Steps) -> Tensor:
        return inputs.fastdd_step()

    def plain(self, inputs: Steps) -> Tensor:
        return inputs.batched.step()

    def loop(self, inputs: Steps) -> Tensor:
        return inputs.published.step()

    def upstream(self, inputs: Steps, code: Upstream) -> Tensor:
        return inputs.upstream(code).step()

    def truth(self, inputs: Steps) -> Result:
        return self._first_step(inputs, lambda problem: _published(problem, torch.float64))

    def check(self, backend: str, inputs: Steps, code: Upstream | None, truth: Result) -> list[float]:
        if backend == "upstream":
            return self._check_upstream(inputs, code)
        first = {
            "fastdd": _ours,
            "torch": lambda problem: _batched(problem, self.dtype),
            "reference-loop": lambda problem: _published(problem, torch.float32),
        }[backend]
        return self.errors(self._first_step(inputs, first), truth)

    def _check_upstream(self, inputs: Steps, code: Upstream) -> list[float]:
        """Upstream draws its augmentation itself, so the truth is that of its draws."""
        seeds = list(range(inputs.problem.config.seed, inputs.problem.config.seed + self._classes))

        def truth(problem: Problem) -> tuple[Tensor, Tensor]:
            strategy, size = problem.config.dsa_strategy, problem.dataset.size
            return _published(problem, torch.float64, [draw(strategy, seed, size, problem.device) for seed in seeds])

        def theirs(problem: Problem) -> tuple[Tensor, Tensor]:
            return _gradient(UpstreamLoop(problem, code), code.network(problem), torch.float32, problem, seeds)

        return self.errors(self._first_step(inputs, theirs), self._first_step(inputs, truth))

    @staticmethod
    def _first_step(inputs: Steps, first) -> Result:
        """Gradient with the smooth network, loss with ReLU."""
        return first(inputs.smooth)[0], first(inputs.problem)[1]

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
        problem, total = inputs.problem, 0
        width, depth = problem.config.width or 128, problem.config.depth or 3
        height, columns = problem.dataset.size
        for block in range(depth):
            channels = width if block else problem.dataset.channels
            total += 2 * 9 * channels * width * (height >> block) * (columns >> block)
        real, synthetic = self._images(inputs)
        return (real + 2 * synthetic) * total

    def _images(self, inputs: Steps) -> tuple[int, int]:
        config, classes = inputs.problem.config, inputs.problem.dataset.num_classes
        return classes * config.batch_real, classes * config.ipc


def _ours(problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradient and loss of our first step; the momentum is then the gradient."""
    stepper = make(problem.config, problem.dataset, problem.device, problem.images)
    loss = stepper.step(0)
    return stepper.momentum, loss


def _batched(problem: Problem, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    steps, first = BatchedSteps(problem, dtype), problem.first_step
    net = problem.network()
    net.load_state_dict(first.state)
    net = net.to(problem.device, memory_format=torch.channels_last)
    loss = steps.loss(net, first.rows, first.per_class, [(row, operation_of(row)) for row in first.params])
    return torch.autograd.grad(loss, steps.images)[0], loss.detach()


def _published(problem: Problem, dtype: torch.dtype, drawn: list | None = None) -> tuple[Tensor, Tensor]:
    drawn = drawn or [(row, operation_of(row)) for row in problem.first_step.params]
    return _gradient(PublishedLoop(problem, dtype), problem.network(), dtype, problem, drawn)


def _gradient(loop: PublishedLoop, net, dtype: torch.dtype, problem: Problem, drawn: list) -> tuple[Tensor, Tensor]:
    first = problem.first_step
    net.load_state_dict(first.state)
    net = net.to(problem.device, dtype).requires_grad_(False)
    loss = loop.loss(net, first.rows.split(first.per_class), drawn)
    return torch.autograd.grad(loss, loop.images)[0], loss.detach()


CASES = [
    Step("step/dm", "a step of DM: 10 classes, 256 real images each, IPC 10, 3x32x32, ConvNet"),
    Step("step/dm+fairdd", "the same with FairDD, 10 groups", debias="fairdd"),
    Step("step/dm-bf16", "a step of DM with the real side in bfloat16", dtype=torch.bfloat16),
    Step("scale/groups", "a step against protected groups, 0 being vanilla DM", variant={"groups": 0}),
    *(
        Step("scale/groups", "a step against protected groups", debias="fairdd", variant={"groups": n}, groups=n)
        for n in (2, 4, 6, 8, 10)
    ),
    *(
        Step("scale/batch", "a step of DM against the real batch", variant={"batch_real": n}, batch_real=n)
        for n in (64, 128, 256, 512)
    ),
    *(Step("scale/ipc", "a step of DM against images per class", variant={"ipc": n}, ipc=n) for n in (1, 10, 50)),
    *(Step("scale/classes", "a step of DM against classes", variant={"classes": n}, classes=n) for n in (2, 5, 10, 20)),
]
