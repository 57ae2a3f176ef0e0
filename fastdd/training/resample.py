"""Resampling: every (class, group) is drawn as often as every other."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.core import rng
from fastdd.training.base import Recipe


class EvenDraws:
    """N draws with replacement, in proportion to 1 / n_{y,g}.

    Args:
        cells: int64 [N], the (class, group) of every image.
    """

    def __init__(self, cells: Tensor):
        sums = (1 / torch.bincount(cells).double()[cells]).cumsum(0)
        self._shares = sums / sums[-1]

    def rows(self, key: tuple) -> Tensor:
        """int64 [N], a function of the key (seed, stream and counters)."""
        u = rng.bits(rng.key(*key, "draws"), len(self._shares), self._shares.device) >> 11 & ((1 << 53) - 1)
        # The first whose share, with all before it, exceeds u < 1.
        return torch.searchsorted(self._shares, u.double() * 2.0**-53, right=True)


class Resample(Recipe):
    """Plain training on images that are drawn with replacement, in proportion to 1 / n_{y,g}: N draws an epoch."""

    name = "resample"
    about = "images are drawn inversely to the size of their (class, group), with replacement"
    source = "Idrissi et al., CLeaR 2022"
    needs_groups = True

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._draws = EvenDraws(self.data.cells)

    def order(self, key: tuple) -> Tensor:
        return self._draws.rows(key)

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        return F.cross_entropy(self.net(images), self.data.labels[rows])
