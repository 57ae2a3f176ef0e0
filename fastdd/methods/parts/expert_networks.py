"""Networks somewhere between where an expert began and where it ended."""

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.core import rng
from fastdd.core.graph import HostKeys, Keys
from fastdd.methods.parts.networks import Stored, row_of


class Between:
    """At every step a random expert's ``l * first + (1 - l) * last`` parameters, l uniform on [0, 1) (NCFM).

    Args:
        net: the module, whose parameters are written anew.
        experts: stored ones, of its parameters.
        seed: of the run.
    """

    def __init__(self, net: nn.Module, experts: Stored, seed: int):
        self.net, self._experts, self._seed = net, experts, seed
        device = next(net.parameters()).device
        # Of a GPU's own, so that no step waits for the host; on CPUs they are read where they lie.
        on_gpu = device.type != "cpu"
        ends = zip(*map(self._read, range(experts.number)), strict=True) if on_gpu else ()
        self._ends = tuple(map(torch.stack, ends))
        # There the parameters are views of one vector too, which is written at once.
        self._flat = _as_one_vector(net) if on_gpu else None

    def keys(self, number: int) -> HostKeys:
        key = rng.key(self._seed, "between", number)
        expert = int(rng.bits_array(key, 1)[0]) % self._experts.number
        return {"expert": expert, "share": float(rng.uniform_array(key, 2)[1])}

    def phase(self, number: int) -> Hashable | None:
        return 0 if models.replays(self.net) else None

    def at(self, number: int, keys: Keys | None = None) -> nn.Module:
        keys = keys or self.keys(number)
        share, (first, last) = keys["share"], self._of(keys["expert"])
        return self._write(share * first + (1 - share) * last)

    def last(self, number: int, keys: Keys | None = None) -> nn.Module:
        """The expert of step ``number`` as it ended."""
        return self._write(self._of((keys or self.keys(number))["expert"])[1])

    def state(self) -> dict[str, Tensor]:
        return {}

    def _of(self, expert: int | Tensor) -> tuple[Tensor, Tensor]:
        """First and last parameters of an expert."""
        if not self._ends:
            return self._read(int(expert))
        first, last = (row_of(rows, expert) for rows in self._ends)
        return first, last

    def _read(self, expert: int) -> tuple[Tensor, Tensor]:
        device = next(self.net.parameters()).device
        return self._experts.at(expert, 0, device), self._experts.at(expert, self._experts.epochs, device)

    @torch.no_grad()
    def _write(self, theta: Tensor) -> nn.Module:
        if self._flat is not None:
            self._flat.copy_(theta)
            return self.net
        parameters = [*self.net.parameters()]
        for parameter, values in zip(parameters, theta.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(values.view_as(parameter))
        return self.net


@torch.no_grad()
def _as_one_vector(net: nn.Module) -> Tensor:
    """The network's parameters in their order, [P], of which they become views."""
    parameters = [*net.parameters()]
    flat = torch.cat([parameter.flatten() for parameter in parameters])
    for parameter, view in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = view.view_as(parameter)
    return flat
