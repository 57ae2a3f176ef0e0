"""Resampling: every (class, group) is drawn as often as every other."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.core import rng
from fastdd.training.base import Recipe


class Resample(Recipe):
    """Plain training on images that are drawn with replacement, in proportion to 1 / n_{y,g}: N draws an epoch."""

    name = "resample"
    about = "images are drawn inversely to the size of their (class, group), with replacement"
    source = "Idrissi et al., CLeaR 2022"
    needs_groups = True

    def __init__(self, *args: Any):
        super().__init__(*args)
        counts = torch.bincount(self.data.cells).double()
        sums = (1 / counts[self.data.cells]).cumsum(0)
        self._shares = sums / sums[-1]

    def order(self, key: tuple) -> Tensor:
        u = rng.bits(rng.key(*key, "draws"), len(self.data), self.data.device) >> 11 & ((1 << 53) - 1)
        # The first whose share, with all before it, exceeds u < 1.
        return torch.searchsorted(self._shares, u.double() * 2.0**-53, right=True)

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        return F.cross_entropy(self.net(images), self.data.labels[rows])
