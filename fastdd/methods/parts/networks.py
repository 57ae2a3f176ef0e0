"""Networks over time: the one that a step looks at the images with."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.methods.parts.training import train_epoch


class Networks(Protocol):
    """The networks of a run; all are one module, whose parameters are written anew."""

    net: nn.Module

    def at(self, number: int) -> nn.Module:
        """The network of step ``number``, ready."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What the networks to come depend on, besides counts: the tensors themselves."""
        ...


class Fresh:
    """A random network at every step.

    Args:
        net: the module.
        seed: of the run.
    """

    def __init__(self, net: nn.Module, seed: int):
        self.net, self._seed, self._init = net, seed, models.ParameterInit(net)

    def at(self, number: int) -> nn.Module:
        self._init.fill(rng.key(self._seed, "net", number))
        return self.net

    def state(self) -> dict[str, Tensor]:
        return {}


class Stored(Protocol):
    """Networks that are stored, by their number and epoch (:class:`fastdd.methods.base.Experts`)."""

    number: int
    epochs: int

    def at(self, expert: int, epoch: int, device: torch.device | str = "cpu") -> Tensor: ...


class Trained:
    """A trained network at every step: of K stored ones that of number t modulo K, the same whatever the seed.

    Args:
        net: the module.
        stored: networks of its parameters.
        epoch: of their training; 0 is where they began.
    """

    def __init__(self, net: nn.Module, stored: Stored, epoch: int):
        self.net, self._stored, self._epoch, self._init = net, stored, epoch, models.ParameterInit(net)
        device = self._init.flat.device
        # Of a GPU's own, so that no step waits for the host; on CPUs they are read where they lie.
        self._rows = None if device.type == "cpu" else [stored.at(k, epoch, device) for k in range(stored.number)]

    def at(self, number: int) -> nn.Module:
        which = number % self._stored.number
        self._init.copy(self._stored.at(which, self._epoch) if self._rows is None else self._rows[which])
        return self.net

    def state(self) -> dict[str, Tensor]:
        return {}


class InTurns:
    """Another network every ``period`` steps, trained between them (:meth:`train`).

    Args:
        begun: networks as they begin.
        period: steps of a network.
        training: trains it after a step; called with the module and the step's number.
    """

    def __init__(self, begun: Networks, period: int, training: Callable[[nn.Module, int], None]):
        self.net, self._begun, self._period, self._training = begun.net, begun, period, training

    def at(self, number: int) -> nn.Module:
        return self.net if number % self._period else self._begun.at(number // self._period)

    def train(self, number: int) -> None:
        """The training that follows step ``number``."""
        self._training(self.net, number)

    def state(self) -> dict[str, Tensor]:
        return {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}


class Warmed:
    """Another network at every step, trained on the synthetic images as they are then (COBRA's warm start).

    Args:
        begun: networks as they begin; their parameters require no gradient outside of the training.
        training: trains it before a step; called with the module and the step's number.
    """

    def __init__(self, begun: Networks, training: Callable[[nn.Module, int], None]):
        self.net, self._begun, self._training = begun.net, begun, training

    def at(self, number: int) -> nn.Module:
        net = self._begun.at(number).requires_grad_(True)
        self._training(net, number)
        return net.requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        return {}


def train_on_synthetic(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    lr: float,
    batch: int,
    dsa_strategy: str,
    key: tuple,
) -> Tensor | None:
    """Plain SGD on the synthetic images, in place; ``key`` is continued by the epoch.

    Returns the last epoch's loss, a scalar on the device; None without epochs.
    """
    net.train()
    sgd = torch.optim.SGD(net.parameters(), lr=lr)
    seen = DeviceImages(images)
    loss = None
    for epoch in range(epochs):
        loss = train_epoch(net, seen, labels, sgd, batch=batch, dsa_strategy=dsa_strategy, key=(*key, epoch))
    sgd.zero_grad()
    return loss
