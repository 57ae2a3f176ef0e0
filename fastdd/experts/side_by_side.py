"""Experts trained side by side: a GPU's launches serve all of them, and each is stored as if it were alone."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fastdd import models
from fastdd.experts.trainer import Expert, ExpertTrainer, Job, decays_at, learning_rate
from fastdd.methods.parts.side_by_side import SideBySideTraining


class SideBySideTrainer(ExpertTrainer):
    """Trains the experts of a job, some at a time, to the same trajectories as one by one but for rounding.

    On CPUs, with recipes, and with networks that don't fit (:func:`fastdd.models.fits_side_by_side`): one by one.
    The bits of an expert depend on how many places there are, not on who has the others: places are as many as an
    even share of all experts, or as fit, also where fewer are left. So a training that is continued ends as it would
    have, with as many ranks or processes.

    Attributes:
        places: experts trained at a time; 0: they are trained one by one.
    """

    def __init__(self, job: Job):
        super().__init__(job)
        self.places = self._how_many(job)
        if not self.places:
            return
        self._nets = models.SideBySide(self.net, self.places)
        self._parameters = [*self._nets.parameters()]
        self._sgd = torch.optim.SGD(
            self._parameters,
            lr=self.config.lr_teacher,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
            fused=self.labels.is_cuda or None,
        )
        if self.config.momentum:
            # Zeros are what no momentum is, and stay where they are, as a CUDA graph needs it.
            for parameter in self._parameters:
                self._sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def _how_many(self, job: Job) -> int:
        if self.config.training != "erm" or not models.fits_side_by_side(self.net):
            return 0
        most = job.side_by_side
        if most is None:
            if self.labels.device.type == "cpu":
                return 0
            most = models.networks_at_once(self.net, self.images, min(self.config.batch_train, len(self.labels)))
        return min(most, -(-self.config.num_experts // job.trainers))

    def entries(
        self, numbers: Sequence[int], report: Callable[[dict[str, Any]], None], stop: Callable[[], bool]
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        if not self.places:
            yield from super().entries(numbers, report, stop)
            return
        for first in range(0, len(numbers), self.places):
            group = numbers[first : first + self.places]
            yield from zip(group, self._train(group, report, stop), strict=True)

    def _train(
        self, numbers: Sequence[int], report: Callable[[dict[str, Any]], None], stop: Callable[[], bool]
    ) -> list[dict[str, Any] | None]:
        """Train these experts to their end; their entries, or None of each where they were stopped."""
        config, experts = self.config, []
        for place, number in enumerate(numbers):
            experts.append(self.start(number))
            self._put(place, experts[-1])
            last = experts[-1].losses[-1] if experts[-1].losses else None
            report({"expert": number, "epoch": experts[-1].epoch, "loss": last})
        # Places that are left over train somebody, whom nobody asks for.
        whose = [*numbers, *(numbers[:1] * (self.places - len(numbers)))]
        for place in range(len(numbers), self.places):
            self._put(place, experts[-1])
        training = self._training(whose)
        while (epoch := min(expert.epoch for expert in experts)) < config.epochs:
            if stop():
                return [None] * len(numbers)
            began = time.perf_counter()
            self._set_rate(training, epoch)
            with models.exact_convolutions():
                losses = training.epoch(epoch, self.drawn_rows(whose, epoch)).tolist()
            behind = [place for place, expert in enumerate(experts) if expert.epoch == epoch]
            for place in behind:
                self._take(place, experts[place], epoch)
                self.conclude(numbers[place], experts[place], losses[place], began, len(behind))
                report({"expert": numbers[place], "epoch": epoch + 1, "loss": losses[place]})
            for place in set(range(len(numbers))).difference(behind):  # were ahead, and still are
                experts[place] = self.start(numbers[place])
                self._put(place, experts[place])
        return [expert.entry() for expert in experts]

    def _training(self, whose: Sequence[int]) -> SideBySideTraining:
        return SideBySideTraining(
            self._nets.train(),
            self.images,
            self.labels,
            self._sgd,
            batch=self.config.batch_train,
            dsa_strategy=self.config.dsa_strategy,
            keys=[(self.config.seed, "expert", number) for number in whose],
            weights=self.weights,
        )

    def _set_rate(self, training: SideBySideTraining, epoch: int) -> None:
        group = self._sgd.param_groups[0]
        rate = learning_rate(self.config, epoch)
        if rate != group["lr"]:
            group["lr"] = rate
            training.learn_by(self._sgd)
        if decays_at(self.config, epoch):
            for kept in self._sgd.state.values():
                kept["momentum_buffer"].zero_()

    def _momenta(self, place: int, progress: Expert) -> Iterator[tuple[Tensor, torch.nn.Parameter, Tensor]]:
        """Of each parameter the momentum in a place, the expert's own parameter, and its momentum, 0 if it has none."""
        if not self.config.momentum:
            return
        for whole, part in zip(self._parameters, progress.sgd.param_groups[0]["params"], strict=True):
            own = progress.sgd.state[part].get("momentum_buffer")
            mine = self._sgd.state[whole]["momentum_buffer"].view(self.places, *part.shape)[place]
            yield mine, part, torch.zeros_like(part) if own is None else own

    def _put(self, place: int, progress: Expert) -> None:
        """Let a place have the network that is in :attr:`net`, and the expert's momentum."""
        self._nets.take(place, self.net)
        for mine, _, own in self._momenta(place, progress):
            mine.copy_(own)

    def _take(self, place: int, progress: Expert, epoch: int) -> None:
        """Let :attr:`net` and the expert's optimiser be as the place has them, after an epoch."""
        self._nets.give(place, self.net)
        if decays_at(self.config, epoch):
            progress.sgd = self.optimiser(epoch, None)
        for mine, part, own in self._momenta(place, progress):
            progress.sgd.state[part]["momentum_buffer"] = own.copy_(mine)
