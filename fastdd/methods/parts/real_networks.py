"""Networks that train on real images between the steps that look at the synthetic ones."""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.core import rng
from fastdd.core.graph import Graphs, HostKeys, Keys, Pool
from fastdd.data import DeviceImages
from fastdd.methods.parts.networks import Networks
from fastdd.methods.parts.training import epoch_keys, train_epoch

# As published (IDC, DREAM).
_MOMENTUM, _WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True)
class RealTraining:
    """How a network trains on real images.

    Attributes:
        images: images of a training, rounded up to whole batches; 0 trains nothing.
        batch: images a step of SGD.
        lr: its learning rate; momentum is 0.9 and weight decay 5e-4.
        strategy: augmentation, one transform an image (:func:`fastdd.ops.idc_params`).
        cutmix: probability of CutMix, a batch.
        warm_epochs: passes over all real images before the network's first step.
    """

    images: int
    batch: int
    lr: float
    strategy: str
    cutmix: float
    warm_epochs: int


class TrainedOnReal:
    """Another network every ``period`` steps, trained on real images before its first step (``warm_epochs``) and
    between its steps (:meth:`train`): SGD with momentum, augmentation and CutMix, as IDC trains it.

    Batches are the real images in random order, again and again in another one: over the run, as published, not a
    network. A batch that begins at the end of an order goes on in the next (published: it is smaller). Nothing depends
    on the synthetic images, so that every rank trains the same network.

    Args:
        begun: networks as they begin; their parameters require a gradient.
        seed: of the run.
        period: steps of a network.
        real: the real images.
        labels: int64 [N], on ``real``'s device.
        how: of the training.
        pool: of the run's graphs.
    """

    def __init__(
        self,
        begun: Networks,
        seed: int,
        period: int,
        real: DeviceImages,
        labels: Tensor,
        how: RealTraining,
        pool: Pool | None = None,
    ) -> None:
        self.net, self._seed, self._period, self._real, self._labels = begun.net, seed, period, real, labels
        self._begun, self._how = begun, how
        self._sgd = torch.optim.SGD(self.net.parameters(), how.lr, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY)
        # There from the start, so that a checkpoint always has them; zero, SGD's first step is as without.
        self._buffers = {name: torch.zeros_like(parameter) for name, parameter in self.net.named_parameters()}
        for name, parameter in self.net.named_parameters():
            self._sgd.state[parameter]["momentum_buffer"] = self._buffers[name]
        self._batches = -(-how.images // how.batch)
        self._warm_batches = -(-how.warm_epochs * len(labels) // how.batch)
        self._order: tuple[int, Tensor] | None = None
        self._trainings = Graphs(
            self._training,
            lambda number: self._training_keys(self._first_batch(number), self._batches),
            labels.device,
            "training on real images",
            phase=lambda number: 0 if real.pixels.device == labels.device and models.replays(self.net) else None,
            pool=pool,
        )

    def keys(self, number: int) -> HostKeys:
        return self._begun.keys(number // self._period)

    def phase(self, number: int) -> Hashable | None:
        first, begun = number % self._period == 0, self._begun.phase(number // self._period)
        return None if begun is None or (first and self._warm_batches) else (first, begun)

    def at(self, number: int, keys: Keys | None = None) -> nn.Module:
        if number % self._period == 0:
            self.untrained(number // self._period, keys)
            for buffer in self._buffers.values():
                buffer.zero_()
            self.warm(number // self._period)
        return self.net

    def untrained(self, number: int, keys: Keys | None = None) -> nn.Module:
        """The network ``number`` as it begins; :meth:`at` makes it anew."""
        return self._begun.at(number, keys)

    def warm(self, number: int) -> None:
        """The training of the network ``number`` before its first step."""
        first = number * self._batches_of_a_network
        if self._warm_batches:
            rows = self._rows_of(first, self._warm_batches)
            self._train(rows, self._training_keys(first, self._warm_batches))

    def train(self, number: int) -> Tensor | None:
        """The training that follows step ``number``; its loss, None without any."""
        if not self._batches:
            return None
        return self._trainings(number, self._rows_of(self._first_batch(number), self._batches))

    def _first_batch(self, number: int) -> int:
        """Of the run's, that of the training that follows step ``number``."""
        network, step = divmod(number, self._period)
        return network * self._batches_of_a_network + self._warm_batches + step * self._batches

    @property
    def _batches_of_a_network(self) -> int:
        return self._warm_batches + (self._period - 1) * self._batches

    def _training_keys(self, first: int, count: int) -> HostKeys:
        """Of a training on the run's batches ``first`` to ``first + count - 1``."""
        how, key = self._how, (self._seed, "on-real", first)
        return epoch_keys(key, count, order=False, cutmix=how.cutmix, size=self._real.size)

    def _training(self, number: int, keys: Keys, rows: Tensor) -> Tensor:
        return self._train(rows, keys)

    def _train(self, rows: Tensor, keys: Keys) -> Tensor:
        """On batches of these rows; a warm start is part of a step that takes no gradients itself."""
        how = self._how
        self.net.train()
        with torch.enable_grad():
            loss = train_epoch(
                self.net,
                self._real,
                self._labels,
                self._sgd,
                batch=how.batch,
                dsa_strategy=how.strategy,
                key=(),
                keys=keys,
                order=rows,
                composition="idc",
                cutmix=how.cutmix,
            )
        self._sgd.zero_grad()
        return loss

    def _rows_of(self, first: int, count: int) -> Tensor:
        return torch.cat([self._rows(number) for number in range(first, first + count)])

    def _rows(self, number: int) -> Tensor:
        """Rows of the run's batch ``number``."""
        n, first = len(self._labels), number * self._how.batch
        last, rows = first + self._how.batch, []
        while first < last:
            order, start = divmod(first, n)
            some = self._order_of(order)[start : start + last - first]
            rows.append(some)
            first += len(some)
        return torch.cat(rows)

    def _order_of(self, number: int) -> Tensor:
        if self._order is None or self._order[0] != number:
            key = rng.key(self._seed, "on-real-order", number)
            self._order = number, rng.permutation(key, len(self._labels), self._real.pixels.device)
        return self._order[1]

    def state(self) -> dict[str, Tensor]:
        net = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        return net | {f"net-momentum.{name}": buffer for name, buffer in self._buffers.items()}
