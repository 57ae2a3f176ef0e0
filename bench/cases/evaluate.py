"""One network of an evaluation, trained on a synthetic set and tested on the test set; an epoch of one, and of five."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastdd import models, ops
from fastdd.bench.baselines.problem import Problem, random_dataset
from fastdd.bench.baselines.published import operation_of_each
from fastdd.bench.baselines.published_evaluation import Drawn, PlainEvaluation, PublishedEvaluation
from fastdd.bench.cases.steps import Step, convolutions
from fastdd.bench.framework.case import Case, Result
from fastdd.bench.framework.upstream import Upstream
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.evaluation import Protocol, evaluate
from fastdd.evaluation.protocol import ProtocolTraining, train, train_side_by_side
from fastdd.methods.parts.training import train_epoch

# A fiftieth of a published evaluation: 20 of 1000 epochs, and 200 of 10,000 test images.
_EPOCHS, _TEST_PER_CLASS = 20, 20
_CHECKED_EPOCHS = 2
# Whose learning rate does not fall while it is timed.
_ENDLESS = 1 << 40
_KEY = "evaluation"


@dataclass(frozen=True)
class Evaluations:
    """What is timed, and what is compared; and the trainings of all backends, as they are begun."""

    timed: Problem
    smooth: Problem
    protocol: Protocol
    checked: Protocol
    begun: dict[str, list[Any]] = field(default_factory=dict)

    def drawn(self) -> list[Drawn]:
        """Our draws of the training that is compared."""
        problem, protocol, batches = self.smooth, self.checked, []
        count, seed = len(problem.images), problem.config.seed
        for epoch in range(protocol.epochs + 1):
            key = seed, _KEY, 0, epoch
            for number, rows in enumerate(rng.permutation(rng.key(*key), count).split(protocol.batch)):
                lanes = rng.lanes(rng.key(*key, number), len(rows))
                params = ops.dsa_params(protocol.dsa_strategy, lanes, problem.dataset.size, shared_op=True)
                batches.append((rows, params, operation_of_each(params)))
        return batches


class Evaluation(Case):
    """A fiftieth of the evaluation of one network, by the published protocol with DSA, at IPC 10.

    What is timed has random draws of its own. Compared is the change of the parameters by three epochs of given draws,
    in one batch each, before the learning rate falls, with a smooth activation (with ReLU, one activation that rounds
    to the other side of zero moves it a thousand times more than arithmetic does).
    """

    name = "evaluate"
    about = "a fiftieth of the evaluation of one network: 10 classes, IPC 10, 3x32x32, ConvNet, DSA"
    variant: ClassVar[dict[str, int]] = {}
    memory = True

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Evaluations:
        data = random_dataset(10, 1, 10 if quick else _TEST_PER_CLASS, 16 if quick else 32)
        settings: dict[str, Any] = {"width": 8, "depth": 2, "ipc": 2} if quick else {"ipc": 10}
        timed, smooth = (
            Problem.make(data, device, method="dm", arch=arch, seed=seed, **settings)
            for arch in ("ConvNet", "ConvNetASwish")
        )
        # The learning rate of the checked one never falls: it would after epoch 2, the last.
        return Evaluations(timed, smooth, Protocol(epochs=2 if quick else _EPOCHS), Protocol(epochs=_CHECKED_EPOCHS))

    def shape(self, inputs: Evaluations) -> dict[str, int | list[int]]:
        config = inputs.timed.config
        return {
            "images": list(inputs.timed.images.shape),
            "epochs": inputs.protocol.epochs + 1,
            "test": len(inputs.timed.dataset.test),
            "width": config.width or 128,
            "depth": config.depth or 3,
        }

    def fastdd(self, inputs: Evaluations) -> None:
        problem = inputs.timed
        evaluate(
            DeviceImages(problem.images.to(problem.device)),
            _labels(problem),
            problem.dataset,
            width=problem.config.width,
            depth=problem.config.depth,
            nets=1,
            protocol=inputs.protocol,
        )

    def plain(self, inputs: Evaluations) -> None:
        PlainEvaluation(inputs.timed, inputs.protocol).run()

    def loop(self, inputs: Evaluations) -> None:
        PublishedEvaluation(inputs.timed, inputs.protocol).run()

    def truth(self, inputs: Evaluations) -> Tensor:
        return _change(PublishedEvaluation(inputs.smooth, inputs.checked, torch.float64), inputs)

    def check(self, backend: str, inputs: Evaluations, code: Upstream | None, truth: Result) -> list[float]:
        if backend != "fastdd":
            make = {"torch": PlainEvaluation, "reference-loop": PublishedEvaluation}[backend]
            return self.errors(_change(make(inputs.smooth, inputs.checked), inputs), truth)
        problem = inputs.smooth
        net, config = _network(problem), problem.config
        images = DeviceImages(problem.images.to(problem.device))
        train(net, images, _labels(problem), inputs.checked, (config.seed, _KEY, 0))
        return self.errors(_difference(net, problem), truth)

    errors = Step.errors  # a change of parameters is one vector, as a gradient is

    def bytes(self, inputs: Evaluations) -> int:
        """Images read, the test images too; parameters and momenta read and written."""
        problem = inputs.timed
        parameters = sum(p.nbytes for p in problem.network().parameters())
        return problem.images.nbytes + problem.dataset.test.images.nbytes + 4 * parameters

    def flops(self, inputs: Evaluations) -> int:
        """Convolutions: training's forward, to the weight, and to the input (but of the first); the test's forward."""
        first, *others = convolutions(inputs.timed)
        trained = (inputs.protocol.epochs + 1) * len(inputs.timed.images) * (2 * first + 3 * sum(others))
        return trained + len(inputs.timed.dataset.test) * (first + sum(others))


def _network(problem: Problem) -> models.Network:
    """The problem's, as it starts."""
    data, config = problem.dataset, problem.config
    net = models.build(
        config.arch, data.channels, data.num_classes, data.size, width=config.width, depth=config.depth
    ).to(problem.device)
    net.load_state_dict(problem.first_step.state)
    return net


def _labels(problem: Problem) -> Tensor:
    return torch.arange(problem.dataset.num_classes, device=problem.device).repeat_interleave(problem.config.ipc)


def _change(run: PublishedEvaluation, inputs: Evaluations) -> Tensor:
    """The change of a baseline's parameters by the training that is compared."""
    run.net.load_state_dict(inputs.smooth.first_step.state)
    run.train(inputs.drawn())
    return _difference(run.net, inputs.smooth)


def _difference(net: torch.nn.Module, problem: Problem) -> Tensor:
    start = problem.first_step.state
    return torch.cat([(net.state_dict()[name].double().cpu() - start[name]).flatten() for name in start])


class _Epochs:
    """Epochs of a network, or of several side by side with a key each, one after another."""

    def __init__(self, net: torch.nn.Module, problem: Problem, protocol: Protocol, keys: Any):
        images, labels, numbers = DeviceImages(problem.images.to(problem.device)), _labels(problem), itertools.count()
        if isinstance(net, models.SideBySide):
            training = ProtocolTraining(net, images, labels, replace(protocol, epochs=_ENDLESS), keys)
            self._epoch = lambda: training.epoch(next(numbers))
            return
        rates = {"momentum": protocol.momentum, "weight_decay": protocol.weight_decay}
        sgd = torch.optim.SGD(net.train().parameters(), lr=protocol.learning_rate, **rates)
        how = {"batch": protocol.batch, "dsa_strategy": protocol.dsa_strategy}
        self._epoch = lambda: train_epoch(net, images, labels, sgd, key=(*keys, next(numbers)), **how)

    def epoch(self) -> None:
        with models.exact_convolutions():
            self._epoch()


class EvaluationEpoch(Evaluation):
    """An epoch of the published evaluation's networks, at IPC 10: 100 images in one batch, DSA.

    Ours are trained as on this device in an evaluation: on GPUs side by side, on CPUs one after another.
    Compared is the first network's change by three epochs, trained side by side with the others.

    Args:
        name: of the case.
        count: networks.
    """

    def __init__(self, name: str, count: int):
        of = "one network" if count == 1 else f"{count} networks"
        self.name, self._count = f"evaluate/{name}", count
        self.about = f"an epoch of {of} in an evaluation: 100 images, 3x32x32, ConvNet, DSA"

    def shape(self, inputs: Evaluations) -> dict[str, int | list[int]]:
        return {name: size for name, size in super().shape(inputs).items() if name in ("images", "width", "depth")}

    def fastdd(self, inputs: Evaluations) -> None:
        if "fastdd" not in inputs.begun:
            inputs.begun["fastdd"] = self._trainings(inputs.timed, inputs.protocol)
        for training in inputs.begun["fastdd"]:
            training.epoch()

    def plain(self, inputs: Evaluations) -> None:
        self._baseline("torch", PlainEvaluation, inputs)

    def loop(self, inputs: Evaluations) -> None:
        self._baseline("reference-loop", PublishedEvaluation, inputs)

    def _baseline(self, backend: str, kind: type[PublishedEvaluation], inputs: Evaluations) -> None:
        if backend not in inputs.begun:
            inputs.begun[backend] = [kind(inputs.timed, inputs.protocol) for _ in range(self._count)]
        for training in inputs.begun[backend]:
            training.epoch()

    def _trainings(self, problem: Problem, protocol: Protocol) -> "list[_Epochs]":
        keys = [(problem.config.seed, _KEY, place) for place in range(self._count)]
        if problem.device.type == "cpu":
            return [_Epochs(_network(problem), problem, protocol, key) for key in keys]
        net = _network(problem)
        nets = models.SideBySide(net, self._count)
        for place in range(self._count):
            nets.take(place, net)
        return [_Epochs(nets, problem, protocol, keys)]

    def check(self, backend: str, inputs: Evaluations, code: Upstream | None, truth: Result) -> list[float]:
        if backend != "fastdd":
            return super().check(backend, inputs, code, truth)
        problem = inputs.smooth
        net = _network(problem)
        nets = models.SideBySide(net, self._count)
        for place in range(self._count):
            nets.take(place, net)
        keys = [(problem.config.seed, _KEY, place) for place in range(self._count)]
        images = DeviceImages(problem.images.to(problem.device))
        train_side_by_side(nets, images, _labels(problem), inputs.checked, keys)
        nets.give(0, net)
        return self.errors(_difference(net, problem), truth)

    def bytes(self, inputs: Evaluations) -> int:
        """Images read; parameters and momenta read and written."""
        parameters = sum(p.nbytes for p in inputs.timed.network().parameters())
        return self._count * (inputs.timed.images.nbytes + 4 * parameters)

    def flops(self, inputs: Evaluations) -> int:
        """Convolutions: forward, to the weight, and to the input (but of the first)."""
        first, *others = convolutions(inputs.timed)
        return self._count * len(inputs.timed.images) * (2 * first + 3 * sum(others))


CASES = [Evaluation(), EvaluationEpoch("epoch", 1), EvaluationEpoch("epoch-of-5", 5)]
