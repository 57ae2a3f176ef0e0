"""The trainings behind the scores of DD-Ranking (:mod:`fastdd.evaluation.scores`), of a set beside random images.

A round trains a network from one initialisation on each of :data:`fastdd.evaluation.scores.CELLS`, the random images
drawn anew; of learning rates that are not given, all are tried. Rates, and the best of the epochs that are looked at,
are chosen by the accuracy on validation images; test images are looked at when both are chosen.

What a set's own labels are, and those of random images beside it:

    hard       classes
    soft       probabilities that it holds (MTT, TESLA, DATM); of random images a teacher's
    teacher    a teacher's of every view (protocol rded), for sets and random images alike; without augmentation its
               probabilities of the images as they are
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from fastdd import models
from fastdd.core import ranks, rng
from fastdd.data import Dataset, DeviceImages, Split, SyntheticSet
from fastdd.data.initial import random_set
from fastdd.evaluation.metrics import METRICS, GroupCounts, interval
from fastdd.evaluation.networks import count_right, seen
from fastdd.evaluation.plan import EvaluationPlan
from fastdd.evaluation.protocol import Protocol, train
from fastdd.evaluation.relabel import Labeller, train_to_labels
from fastdd.evaluation.scores import CELLS, SCORES, Scores, as_fraction, scores
from fastdd.methods import Teacher
from fastdd.training import TrainingImages

RATES = (0.001, 0.005, 0.01, 0.05, 0.1)  # of which the package takes the best where no rate was learned with the set
WHOLE_EPOCHS = 200
_WHOLE_RATE = 0.01
_LOOKS = 15  # at a network while it trains: the package looks every 20 of 300 epochs
OwnLabels = Literal["hard", "soft", "teacher"]
When = Literal["last", "best"]


@dataclass(frozen=True)
class Reached:
    """A trained network on the test images.

    Attributes:
        rate, epoch: with which learning rate, after how many epochs.
        counts: what it got right.
    """

    rate: float
    epoch: int
    counts: GroupCounts


@dataclass(frozen=True)
class Outcome:
    """What a round found of one of the cells.

    Attributes:
        last: at the end, with the rate that was then best on validation images.
        best: the best epoch and rate on validation images.
        by_test: percent, the best accuracy on the test images of all epochs that were looked at and all rates, as the
            package reports it; None where it was not looked for.
    """

    last: Reached
    best: Reached
    by_test: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Scores of a set.

    Attributes:
        arch: the networks' name.
        rounds: of every round, what networks on each of the cells reached.
        labels: the set's own.
        teacher: who labels, in words; empty for hard labels.
        protocol: how networks were trained on the set.
        whole_epochs: epochs on the whole training split.
        rates: that were tried where none was given.
        seed: what all draws are functions of.
        tested_on: ``test``, or ``validation`` for held-out training images.
        held_out: images that rates and epochs were chosen by.
        seconds: all trainings and tests.
    """

    arch: str
    rounds: tuple[Mapping[str, Outcome], ...]
    labels: OwnLabels
    teacher: str
    protocol: Protocol
    whole_epochs: int
    rates: tuple[float, ...]
    seed: int
    tested_on: str
    held_out: int
    seconds: float

    def scores(self, when: When = "last", deo: str = "range") -> dict[str, list[Scores]]:
        """By figure (accuracy, wa, ba; deo_m and deo_a as what they leave of 1), of every round, in fractions.

        Args:
            when: ``last`` or ``best``.
            deo: as :meth:`fastdd.evaluation.GroupCounts.metrics` takes it.
        """
        found = [
            {cell: getattr(outcome, when).counts.metrics(deo) for cell, outcome in one.items()} for one in self.rounds
        ]
        return {
            name: [scores({cell: as_fraction(of_cell[cell], name) for cell in CELLS}) for of_cell in found]
            for name in METRICS
        }

    def summary(self, when: When = "last", deo: str = "range") -> dict[str, dict[str, dict[str, float | None]]]:
        """``{"accuracy": {"hlr": {"mean", "std", "interval"}, "ior": ..., "lrs": ..., "ars": ...}, "wa": ...}``.

        In fractions; the standard deviation is over rounds, divided by their number, the interval half of the 95 %
        interval of the mean over rounds, which covers networks and random draws, not another set by the same method
        (None for one round). All None where the test set does not define a figure.
        """
        return {
            name: {score: figure([getattr(one, score) for one in of_rounds]) for score in SCORES}
            for name, of_rounds in self.scores(when, deo).items()
        }

    def reached(self, when: When = "last", deo: str = "range") -> dict[str, dict[str, dict[str, float | None]]]:
        """Of every cell, mean, deviation and interval of every figure, in percent (:meth:`Metrics`)."""
        found: dict[str, dict[str, dict[str, float | None]]] = {}
        for cell in CELLS:
            of_rounds = [getattr(one[cell], when).counts.metrics(deo) for one in self.rounds]
            found[cell] = {name: figure([getattr(metrics, name) for metrics in of_rounds]) for name in METRICS}
        return found

    def compat(self) -> dict[str, dict[str, float]] | None:
        """The public package's figures, mean and (numpy's) deviation: percentages, also within f; rates and epochs
        that were best on the test images. None where these were not looked for."""
        if any(outcome.by_test is None for one in self.rounds for outcome in one.values()):
            return None
        of_rounds = [scores({cell: one[cell].by_test for cell in CELLS}) for one in self.rounds]
        found = {score: [getattr(one, score) for one in of_rounds] for score in SCORES}
        return {score: {key: figure(values)[key] for key in ("mean", "std")} for score, values in found.items()}


def figure(values: Sequence[float]) -> dict[str, float | None]:
    """``mean``, ``std`` (numpy's) and half of the 95 % ``interval`` of the mean; all None where a value is NaN.

    >>> figure([1.0, 3.0])["mean"], figure([1.0])["interval"], figure([math.nan])["mean"]
    (2.0, None, None)
    """
    tensor = torch.tensor(values, dtype=torch.float64)
    mean, std = tensor.mean().item(), tensor.std(correction=0).item()
    if math.isnan(mean):
        return dict.fromkeys(("mean", "std", "interval"))
    return {"mean": mean, "std": std, "interval": interval(std, len(values))}


@dataclass(frozen=True)
class Cell:
    """What networks are trained on, and how.

    Attributes:
        images, labels: on their device.
        protocol: but for its rate.
        rates: that are tried.
        labeller: of a protocol that relabels, what it trains to.
    """

    images: DeviceImages
    labels: Tensor
    protocol: Protocol
    rates: tuple[float, ...]
    labeller: Labeller | None = None

    def train(self, net: torch.nn.Module, rate: float, key: tuple, after: Callable[[int], None]) -> None:
        """A network, with a rate; draws are functions of the key."""
        protocol = replace(self.protocol, learning_rate=rate)
        if self.labeller is None:
            train(net, self.images, self.labels, protocol, key, after=after)
            return
        names = ("epochs", "batch", "learning_rate", "momentum", "weight_decay")
        how = {name: getattr(protocol, name) for name in names}
        train_to_labels(net, self.images, self.labels, self.labeller, after=after, **how)


@dataclass(frozen=True)
class RankingPlan:
    """Scores before they are computed; :func:`fastdd.rank` makes it.

    Attributes:
        set: with its classes numbered as the data set's, its images those that networks see.
        of_set: the plan of an evaluation on it by protocol ddranking: images, network, training.
        ipc: images a class of the random sets.
        labels: its own.
        rates: tried where none is given.
        own_rates: of networks on the set with its own labels: the one that was given or learned, or ``rates``.
        whole_epochs: epochs on the whole training split.
        relabelled: of labels ``teacher``, the plan of protocol rded, from a set; None for other labels.
        teacher: who labels random images; None: the round's network on the whole training split.
        by_test: whether the test images are looked at on the way, for the package's figures.
    """

    set: SyntheticSet
    of_set: EvaluationPlan
    ipc: int
    labels: OwnLabels
    rates: tuple[float, ...]
    own_rates: tuple[float, ...]
    whole_epochs: int
    relabelled: Callable[[SyntheticSet], EvaluationPlan] | None = field(default=None, repr=False)
    teacher: Teacher | None = None
    by_test: bool = False

    @property
    def data(self) -> Dataset:
        """What is tested on, normalised as the set's images are."""
        return self.of_set.dataset

    def rates_of(self, cell: str) -> tuple[float, ...]:
        """That are tried on a cell, where it is not of labels that are made of every view."""
        of_own = cell in ("own", "own plain") or (cell == "hard" and self.labels == "hard")
        return (_WHOLE_RATE,) if cell == "real" else self.own_rates if of_own else self.rates

    @property
    def trainings(self) -> int:
        """Of one round."""
        cells = [cell for cell in CELLS if not (cell == "own" and self.labels == "hard")]
        of_views = ("own", "random") if self.relabelled is not None else ()
        return sum(1 if cell in of_views else len(self.rates_of(cell)) for cell in cells)

    def rank(self, progress: Callable[[int, int, str], None] | None = None) -> Ranking:
        """Do it: the ranks of a job take rounds in turn, and all return the scores of all.

        ``progress`` is called with (trainings done, trainings, what was found), on rank 0 of its own rounds.
        """
        plan, began = self.of_set, time.perf_counter()
        ranks.agree("ranking", self.data.name, self.set.digest(), plan.network, plan.nets, plan.protocol, plan.seed)
        own = range(ranks.rank(), plan.nets, ranks.world())
        found, done = {}, 0
        for number in own:

            def tell(cell: str, outcome: Outcome, trainings: int) -> None:
                nonlocal done
                done += trainings
                if progress is not None and ranks.rank() == 0:
                    accuracy = outcome.last.counts.metrics().accuracy
                    progress(done, len(own) * self.trainings, f"trainings, {cell} {accuracy:.1f}")

            found[number] = _Round(self, number).outcomes(tell)
        ranks.meet()
        of_all = {number: one for part in ranks.exchange(found) for number, one in part.items()}
        return Ranking(
            models.canonical_name(plan.arch),
            tuple(of_all[number] for number in range(plan.nets)),
            self.labels,
            self._teachers_name,
            plan.protocol,
            self.whole_epochs,
            self.rates,
            plan.seed,
            self.data.tested_on,
            len(self.data.validation),
            time.perf_counter() - began,
        )

    @property
    def _teachers_name(self) -> str:
        if self.labels == "hard":
            return ""
        return "the round's network on the whole training split" if self.teacher is None else self.teacher.path

    def random_images(self, number: int) -> SyntheticSet:
        """Of a round."""
        return random_set(self.data, self.ipc, rng.key(self.of_set.seed, "ranking-random", number), self.of_set.zca)

    @cached_property
    def whole(self) -> Cell:
        """The whole training split, as the package trains on it: without augmentation."""
        of = self._seen(self.data.train)
        protocol = replace(self.of_set.protocol, epochs=self.whole_epochs, dsa_strategy="none", dc_strategy="none")
        return Cell(of.images, of.labels, protocol, self.rates_of("real"))

    @cached_property
    def tests(self) -> dict[str, TrainingImages]:
        """The splits that networks are tested on."""
        return {"validation": self._seen(self.data.validation), "test": self._seen(self.data.test)}

    def _seen(self, split: Split) -> TrainingImages:
        return seen(split, self.data, self.of_set.labels.device, self.of_set.zca)


class _Round:
    """The trainings of a round.

    Args:
        plan: of the scores.
        number: of the round: its networks begin alike, and see their images in the same order.
    """

    def __init__(self, plan: RankingPlan, number: int):
        self._plan, self._number = plan, number
        network, data = plan.of_set.network, plan.data
        build = {"width": network["width"], "depth": network["depth"], "device": plan.of_set.labels.device}
        self._net = models.build(network["arch"], data.channels, data.num_classes, data.size, **build)
        self._init = models.ParameterInit(self._net)
        # Batch norms' statistics, as a new network has them.
        self._fresh = {name: value.clone() for name, value in self._net.state_dict().items()}

    def outcomes(self, tell: Callable[[str, Outcome, int], None]) -> dict[str, Outcome]:
        """Of all cells; ``tell`` is called with every one and its number of trainings."""
        plan, found = self._plan, {}

        def do(name: str, cell: Cell) -> None:
            found[name] = self._outcome(cell)
            tell(name, found[name], len(cell.rates))

        do("real", plan.whole)
        device = plan.of_set.labels.device
        other = plan.random_images(self._number)
        sets = {"own": plan.set, "random": other}
        images = {name: DeviceImages(one.images.to(device)) for name, one in sets.items()}
        hard = {name: one.labels.to(device) for name, one in sets.items()}
        soft = dict(hard)
        if plan.labels != "hard":  # before another training: the network on the whole split may be the teacher
            soft["random"] = self._says(images["random"])
            soft["own"] = plan.of_set.labels if plan.labels == "soft" else self._says(images["own"])
        augmented = plan.of_set.protocol
        plain = replace(augmented, dsa_strategy="none", dc_strategy="none")
        do("hard", Cell(images["own"], hard["own"], augmented, plan.rates_of("hard")))
        for name, one in sets.items():
            if name == "own" and plan.labels == "hard":
                found["own"] = found["hard"]
            elif plan.relabelled is not None:
                of = plan.relabelled(one)
                do(name, Cell(of.images, of.labels, of.protocol, (of.protocol.learning_rate,), of.labeller))
            else:
                do(name, Cell(images[name], soft[name], augmented, plan.rates_of(name)))
            do(f"{name} plain", Cell(images[name], soft[name], plain, plan.rates_of(f"{name} plain")))
        return found

    def _says(self, images: DeviceImages) -> Tensor:
        """A teacher's probabilities of classes, float32 [N, C]."""
        teacher = self._plan.teacher or Teacher(self._net.eval(), "", "")
        with models.exact_convolutions():
            return teacher.logits(images.pixels).softmax(1)

    def _outcome(self, cell: Cell) -> Outcome:
        """The network is left as it was in the best epoch."""
        looks = _looks(cell.protocol.passes)
        kept: dict[str, tuple[float, float, int, dict[str, Tensor]]] = {}
        by_test = 0.0 if self._plan.by_test else None

        def look(rate: float, epoch: int) -> None:
            nonlocal by_test
            if epoch not in looks:
                return
            accuracy = self._right("validation").metrics().accuracy
            for when in ("best", "last")[: 1 + (epoch == cell.protocol.passes)]:
                if when not in kept or accuracy > kept[when][0]:
                    state = {name: value.clone() for name, value in self._net.state_dict().items()}
                    kept[when] = accuracy, rate, epoch, state
            if by_test is not None:
                by_test = max(by_test, self._right("test").metrics().accuracy)

        for rate in cell.rates:
            self._net.load_state_dict(self._fresh)
            self._init.fill(rng.key(self._plan.of_set.seed, "evaluation-net", self._number))
            with models.exact_convolutions():
                key = self._plan.of_set.seed, "evaluation", self._number
                cell.train(self._net, rate, key, lambda epoch, rate=rate: look(rate, epoch))
        reached: dict[str, Reached] = {}
        for when in ("last", "best"):
            _, rate, epoch, state = kept[when]
            same = when == "best" and (rate, epoch) == (reached["last"].rate, reached["last"].epoch)
            self._net.load_state_dict(state)
            with models.exact_convolutions():
                reached[when] = reached["last"] if same else Reached(rate, epoch, self._right("test"))
        return Outcome(**reached, by_test=by_test)

    def _right(self, split: str) -> GroupCounts:
        of = self._plan.tests[split]
        return count_right(self._net, of.images, of.labels, of.groups, self._plan.data)


def _looks(epochs: int) -> set[int]:
    """After which epochs a network is looked at: evenly, and at the end.

    >>> sorted(_looks(300))[:3], len(_looks(300)), sorted(_looks(2))
    ([20, 40, 60], 15, [1, 2])
    """
    every = max(1, epochs // _LOOKS)
    return {*range(every, epochs + 1, every), epochs}
