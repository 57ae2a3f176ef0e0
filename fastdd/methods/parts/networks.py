"""Networks over time: the one that a step looks at the images with."""

from collections.abc import Callable, Hashable
from typing import Protocol

import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.core import rng
from fastdd.core.graph import HostKeys, Keys


class Networks(Protocol):
    """The networks of a run; all are one module, whose parameters are written anew."""

    net: nn.Module

    def keys(self, number: int) -> HostKeys:
        """What the network of step ``number`` is made with, by name (:mod:`fastdd.core.graph`)."""
        ...

    def phase(self, number: int) -> Hashable | None:
        """What of :meth:`at` goes by the step's number, besides keys; None where the device is waited for."""
        ...

    def at(self, number: int, keys: Keys | None = None) -> nn.Module:
        """The network of step ``number``, ready; ``keys`` where they are on a device already."""
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

    def keys(self, number: int) -> HostKeys:
        return {"net": rng.key(self._seed, "net", number)}

    def phase(self, number: int) -> Hashable | None:
        return 0 if self._init.replays else None

    def at(self, number: int, keys: Keys | None = None) -> nn.Module:
        self._init.fill((keys or self.keys(number))["net"])
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
        on_gpu = device.type != "cpu"
        self._rows = torch.stack([stored.at(k, epoch, device) for k in range(stored.number)]) if on_gpu else None

    def keys(self, number: int) -> HostKeys:
        return {"trained": number % self._stored.number}

    def phase(self, number: int) -> Hashable | None:
        return 0 if self._init.replays else None

    def at(self, number: int, keys: Keys | None = None) -> nn.Module:
        which = (keys or self.keys(number))["trained"]
        if self._rows is None:
            self._init.copy(self._stored.at(int(which), self._epoch))
        else:
            self._init.copy(row_of(self._rows, which))
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

    def keys(self, number: int) -> HostKeys:
        return self._begun.keys(number // self._period)

    def phase(self, number: int) -> Hashable | None:
        begun = self._begun.phase(number // self._period)
        return None if begun is None else (number % self._period == 0, begun)

    def at(self, number: int, keys: Keys | None = None) -> nn.Module:
        return self.net if number % self._period else self._begun.at(number // self._period, keys)

    def train(self, number: int) -> None:
        """The training that follows step ``number``."""
        self._training(self.net, number)

    def state(self) -> dict[str, Tensor]:
        return {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}


class Warmed:
    """Another network at every step, trained on the synthetic images as they are then (COBRA's warm start).

    Args:
        begun: networks as they begin; their parameters require no gradient outside of the training.
        training: trains it before a step; called with the module and keys.
        training_keys: of the training before step ``number``, by names that ``begun`` has not.
        phase: of the training, as :meth:`Networks.phase` has it.
    """

    def __init__(
        self,
        begun: Networks,
        training: Callable[[nn.Module, Keys], None],
        training_keys: Callable[[int], HostKeys],
        phase: Hashable | None = 0,
    ):
        self.net, self._begun, self._training = begun.net, begun, training
        self._training_keys, self._phase = training_keys, phase

    def keys(self, number: int) -> HostKeys:
        return {**self._begun.keys(number), **self._training_keys(number)}

    def phase(self, number: int) -> Hashable | None:
        begun = self._begun.phase(number)
        return None if None in (begun, self._phase) else (begun, self._phase)

    def at(self, number: int, keys: Keys | None = None) -> nn.Module:
        keys = keys or self.keys(number)
        net = self._begun.at(number, keys).requires_grad_(True)
        self._training(net, keys)
        return net.requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        return {}


def row_of(rows: Tensor, which: int | Tensor) -> Tensor:
    """Row ``which`` of [K, P]; of a scalar on the device without waiting for it."""
    return rows.index_select(0, which[None])[0] if isinstance(which, Tensor) else rows[which]
