"""A method of one's own: fastdd distill --plugin softened_matching.py --method softened-dm --power 0.5 ...

Distribution matching of embeddings whose values are taken to a power, with their sign: large ones pull less.
"""

from typing import Any

import torch
from torch import Tensor, nn

import fastdd
from fastdd.core.settings import setting
from fastdd.methods.dm import Dm, DmSettings


class Softened(nn.Module):
    """A network as distribution matching sees it, whose embedding is sign(x) (|x| + eps)^power."""

    def __init__(self, net: Any, power: float) -> None:
        super().__init__()
        self.net, self.power = net, power

    def embed(self, images: Tensor) -> Tensor:
        return self.softened(self.net.embed(images))

    def embedder(self, dtype: torch.dtype | None = None) -> Any:
        embed = self.net.embedder(dtype)
        return lambda images: self.softened(embed(images))

    def softened(self, values: Tensor) -> Tensor:
        return values.sign() * (values.abs() + 1e-6) ** self.power


class SoftenedSettings(DmSettings):
    """Settings of softened matching: those of DM, and the power."""

    power: float = setting("power of the embeddings' values", 0.5, gt=0, le=1)


class SoftenedDm(Dm):
    """Distribution matching of softened embeddings."""

    about = "distribution matching of embeddings to a power"
    source = "an example"
    Settings = SoftenedSettings

    def signal(self, net: nn.Module) -> nn.Module:
        return Softened(net, self._config.power)


fastdd.register_method("softened-dm", SoftenedDm, settings={"lr_img": 5.0})
