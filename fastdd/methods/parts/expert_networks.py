"""Networks somewhere between where an expert began and where it ended."""

import torch
from torch import Tensor, nn

from fastdd.core import rng
from fastdd.methods.base import Experts


class Between:
    """At every step a random expert's ``l * first + (1 - l) * last`` parameters, l uniform on [0, 1) (NCFM).

    Args:
        net: the module, whose parameters are written anew.
        experts: stored ones, of its parameters.
        seed: of the run.
    """

    def __init__(self, net: nn.Module, experts: Experts, seed: int):
        self.net, self._experts, self._seed = net, experts, seed

    def at(self, number: int) -> nn.Module:
        key = rng.key(self._seed, "between", number)
        share = rng.uniform(key, 2)[1].item()
        return self._write(share * self._of(number, 0) + (1 - share) * self._of(number, self._experts.epochs))

    def last(self, number: int) -> nn.Module:
        """The expert of step ``number`` as it ended."""
        return self._write(self._of(number, self._experts.epochs))

    def state(self) -> dict[str, Tensor]:
        return {}

    def _of(self, number: int, epoch: int) -> Tensor:
        first = rng.bits(rng.key(self._seed, "between", number), 1).item()
        device = next(self.net.parameters()).device
        return self._experts.at(first % self._experts.number, epoch, device)

    @torch.no_grad()
    def _write(self, theta: Tensor) -> nn.Module:
        parameters = [*self.net.parameters()]
        for parameter, values in zip(parameters, theta.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(values.view_as(parameter))
        return self.net
