"""An epoch of a training recipe: as published, its ``reference-loop`` and in float64 the truth; and in plain PyTorch.

What makes the published one slow is kept: images read one by one, a loop over classes whose indices and largest losses
are looked up anew in every step (of all images, for the latter), and an optimiser a network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastdd import models
from fastdd.bench.baselines import plain
from fastdd.core import rng
from fastdd.data import Dataset, DeviceImages
from fastdd.training import TrainingImages, TrainSettings, constants, start
from fastdd.training.trainer import Trainer

# Plain PyTorch trains faster in small parts on CPUs, whose activations stay in cache; channels-last takes a fifth more.
_CHUNK = 16
_KEY = (0, "train-real")

# Rows of a batch, and the order of its bias features where they are swapped.
Drawn = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TrainingProblem:
    """A network's training, to do epochs of.

    Attributes:
        config: of the training: recipe, constants, network, batch, optimiser.
        dataset: real images.
        device: where.
    """

    config: TrainSettings
    dataset: Dataset
    device: torch.device

    def trainer(self) -> Trainer:
        """Ours, at its start."""
        config, data = self.config, self.dataset

        def network(name: str) -> models.Network:
            sizes = {"width": config.width, "depth": config.depth}
            key = rng.key(config.seed, name)
            return models.build(
                config.arch, data.channels, data.num_classes, data.size, key=key, device=self.device, **sizes
            )

        images = TrainingImages(
            DeviceImages.of(data.train.images, data.mean, data.std, self.device),
            torch.as_tensor(data.train.labels, device=self.device),
            data.num_classes,
            torch.as_tensor(data.train.groups, device=self.device),
            data.num_groups,
        )
        begun = start(config.training, images, network("net"), network, _KEY, config.constants)
        return Trainer(begun, config, config.lr, _KEY)

    @cached_property
    def start(self) -> dict[str, dict[str, Tensor]]:
        """State dicts of all that our recipe trains, at its start."""
        return {name: module.state_dict() for name, module in trained(self.trainer()).items()}

    @cached_property
    def drawn(self) -> list[Drawn]:
        """What our first epoch draws, on the device."""
        key = (*_KEY, 0)
        order = rng.permutation(rng.key(*key), len(self.dataset.train), self.device)
        return [
            (rows, rng.permutation(rng.key(*key, number, "swap"), len(rows), self.device))
            for number, rows in enumerate(order.split(self.config.batch_train))
        ]


def trained(trainer: Trainer) -> dict[str, nn.Module]:
    """All that a recipe of ours trains, by name."""
    return {"net": trainer.recipe.net, **trainer.recipe.modules}


class PublishedTraining:
    """Plain training, LfF or DFA as published.

    Args:
        problem: images, recipe and optimiser.
        dtype: float64 for the truth.
    """

    def __init__(self, problem: TrainingProblem, dtype: torch.dtype = torch.float32):
        self._problem, self._dtype = problem, dtype
        data, config, device = problem.dataset, problem.config, problem.device
        self._labels = torch.as_tensor(data.train.labels, device=device)
        self._constants = constants(config.training, config.constants)
        activation = {"ConvNet": "relu", "ConvNetASwish": "swish"}[config.arch]
        sizes = (config.width or 128, config.depth or 3)
        self.nets = {name: self._net(name, (*sizes, activation)) for name in problem.start}
        self._optimisers = [self._optimiser(list(net.parameters())) for net in self._optimised()]
        tables = torch.zeros(3, len(self._labels), dtype=dtype, device=device)
        self._biased, self._debiased, self._visited = tables.unbind()
        self._steps = 0
        self._loss: Callable[[Tensor, Tensor, Tensor], Tensor] = {"erm": self._erm, "lff": self._lff, "dfa": self._dfa}[
            config.training
        ]

    def _net(self, name: str, sizes: tuple[int, int, str]) -> nn.Module:
        data, state = self._problem.dataset, self._problem.start[name]
        if "weight" in state:
            net: nn.Module = nn.Linear(state["weight"].shape[1], data.num_classes)
        else:
            net = plain.ConvNet(data.channels, data.num_classes, data.size, *sizes)
        net.load_state_dict(state)
        return net.to(self._problem.device, self._dtype)

    def _optimised(self) -> list[nn.Module]:
        """One optimiser each."""
        return list(self.nets.values())

    def _optimiser(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        config = self._problem.config
        if config.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)

    def epoch(self) -> None:
        """All images once, in an order of its own."""
        data = self._problem.dataset
        items = _Items(self._pixels(), data.train.labels)
        for rows, images, labels in DataLoader(items, self._problem.config.batch_train, shuffle=True, num_workers=0):
            device = self._problem.device
            self._step(rows.to(device), images.to(device), labels.to(device), torch.randperm(len(rows)).to(device))

    def train(self, batches: Sequence[Drawn]) -> None:
        """One step a batch, of given draws."""
        pixels = self._pixels().to(self._problem.device)
        for rows, order in batches:
            self._step(rows, pixels[rows], self._labels[rows], order)

    def _pixels(self) -> Tensor:
        """All images, normalised."""
        data = self._problem.dataset
        mean, std = (torch.tensor(values, dtype=self._dtype).view(-1, 1, 1) for values in (data.mean, data.std))
        return (torch.from_numpy(data.train.images).to(self._dtype) / 255 - mean) / std

    def _step(self, rows: Tensor, images: Tensor, labels: Tensor, order: Tensor) -> None:
        self._order = order
        loss = self._loss(rows, images, labels)
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in self._optimisers:
            optimiser.step()

    def _apply(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return function(images)

    def _erm(self, rows: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self._apply(self.nets["net"], images), labels)

    def _lff(self, rows: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        of_biased, logits = (self._apply(self.nets[name], images) for name in ("biased", "net"))
        weights = self._weights(rows, labels, _each(of_biased, labels).detach(), _each(logits, labels).detach())
        return self._gce(of_biased, labels) + (weights * _each(logits, labels)).mean()

    def _dfa(self, rows: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        values, order = self._constants, self._order
        intrinsic, bias = (self._apply(self.nets[name].embed, images) for name in ("net", "bias"))
        logits, of_bias = self._heads(intrinsic, bias)
        weights = self._weights(rows, labels, _each(of_bias, labels).detach(), _each(logits, labels).detach())
        loss = (weights * _each(logits, labels)).mean() + values.lambda_dis * self._gce(of_bias, labels)
        if self._steps >= values.swap_from:
            logits, of_bias = self._heads(intrinsic, bias[order])
            swapped = (weights * _each(logits, labels)).mean()
            swapped = swapped + values.lambda_swap_bias * self._gce(of_bias, labels[order])
            loss = loss + values.lambda_swap * swapped
        self._steps += 1
        return loss

    def _heads(self, intrinsic: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        of_intrinsic = self.nets["intrinsic_head"](torch.cat([intrinsic, bias.detach()], 1))
        return of_intrinsic, self.nets["bias_head"](torch.cat([intrinsic.detach(), bias], 1))

    def _gce(self, logits: Tensor, labels: Tensor) -> Tensor:
        q = self._constants.q
        right = logits.softmax(1).gather(1, labels[:, None])[:, 0].detach()
        return (q * right**q * _each(logits, labels)).mean()

    def _update(self, rows: Tensor, biased: Tensor, debiased: Tensor) -> None:
        decay = self._constants.decay
        for table, losses in ((self._biased, biased), (self._debiased, debiased)):
            table[rows] = decay * table[rows] + (1 - decay * self._visited[rows]) * losses
        self._visited[rows] = 1

    def _weights(self, rows: Tensor, labels: Tensor, biased: Tensor, debiased: Tensor) -> Tensor:
        self._update(rows, biased, debiased)
        shares = []
        for table in (self._biased, self._debiased):
            share = table[rows].clone()
            for label in range(self._problem.dataset.num_classes):
                share[torch.where(labels == label)[0]] /= table[torch.where(self._labels == label)[0]].max()
            shares.append(share)
        return shares[0] / (shares[0] + shares[1] + 1e-8)


class PlainTraining(PublishedTraining):
    """The same in plain PyTorch as anyone would write it for speed: images ready where they are used, in parts that
    stay in cache; one fused optimiser; nothing waited for."""

    def __init__(self, problem: TrainingProblem):
        super().__init__(problem)
        self._ready = self._pixels().to(problem.device)

    def _optimised(self) -> list[nn.Module]:
        return [nn.ModuleDict(self.nets)]

    def _optimiser(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        config = self._problem.config
        if config.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        return super()._optimiser(parameters)

    def epoch(self) -> None:
        for rows in torch.randperm(len(self._labels), device=self._problem.device).split(
            self._problem.config.batch_train
        ):
            order = torch.randperm(len(rows), device=rows.device)
            self._step(rows, self._ready[rows], self._labels[rows], order)

    def _apply(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        part = len(images) if images.is_cuda else _CHUNK
        return torch.cat([function(some) for some in images.split(part)])

    def _weights(self, rows: Tensor, labels: Tensor, biased: Tensor, debiased: Tensor) -> Tensor:
        self._update(rows, biased, debiased)
        classes, shares = self._problem.dataset.num_classes, []
        for table in (self._biased, self._debiased):
            largest = table.new_zeros(classes).scatter_reduce(0, self._labels, table, "amax")
            shares.append(table[rows] / largest[labels])
        return shares[0] / (shares[0] + shares[1] + 1e-8)


_each = partial(F.cross_entropy, reduction="none")


class _Items(torch.utils.data.Dataset):
    """Images by their number, one by one, without the decoding of files that published code adds."""

    def __init__(self, pixels: Tensor, labels):
        self._pixels, self._labels = pixels, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[int, Tensor, int]:
        return row, self._pixels[row], int(self._labels[row])
