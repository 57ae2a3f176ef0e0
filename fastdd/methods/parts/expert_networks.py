"""Networks somewhere between where an expert began and where it ended."""

import torch
from torch import Tensor, nn

from fastdd.core import rng
from fastdd.methods.parts.networks import Stored


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
        self._ends = None if device.type == "cpu" else [self._read(number) for number in range(experts.number)]
        # There the parameters are views of one vector too, which is written at once.
        self._flat = None if device.type == "cpu" else _as_one_vector(net)

    def at(self, number: int) -> nn.Module:
        key = rng.key(self._seed, "between", number)
        share = rng.uniform(key, 2)[1].item()
        first, last = self._of(number)
        return self._write(share * first + (1 - share) * last)

    def last(self, number: int) -> nn.Module:
        """The expert of step ``number`` as it ended."""
        return self._write(self._of(number)[1])

    def state(self) -> dict[str, Tensor]:
        return {}

    def _of(self, number: int) -> tuple[Tensor, Tensor]:
        """First and last parameters of a step's expert."""
        expert = rng.bits(rng.key(self._seed, "between", number), 1).item() % self._experts.number
        return self._read(expert) if self._ends is None else self._ends[expert]

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
