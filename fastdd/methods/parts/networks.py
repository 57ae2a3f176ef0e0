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


class InTurns:
    """A random network every ``period`` steps, trained between them (:meth:`train`).

    Args:
        net: the module.
        seed: of the run.
        period: steps of a network.
        training: trains it after a step; called with the module and the step's number.
    """

    def __init__(self, net: nn.Module, seed: int, period: int, training: Callable[[nn.Module, int], None]):
        self.net, self._fresh, self._period, self._training = net, Fresh(net, seed), period, training

    def at(self, number: int) -> nn.Module:
        return self.net if number % self._period else self._fresh.at(number // self._period)

    def train(self, number: int) -> None:
        """The training that follows step ``number``."""
        self._training(self.net, number)

    def state(self) -> dict[str, Tensor]:
        return {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}


class Warmed:
    """A random network at every step, trained on the synthetic images as they are then (COBRA's warm start).

    Args:
        net: the module; its parameters require no gradient outside of the training.
        seed: of the run.
        training: trains it before a step; called with the module and the step's number.
    """

    def __init__(self, net: nn.Module, seed: int, training: Callable[[nn.Module, int], None]):
        self.net, self._fresh, self._training = net, Fresh(net, seed), training

    def at(self, number: int) -> nn.Module:
        net = self._fresh.at(number).requires_grad_(True)
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
