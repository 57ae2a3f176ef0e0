"""Group DRO: the groups that do worst count most."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.core.settings import setting
from fastdd.training.base import Recipe, Settings


class GroupDroSettings(Settings):
    """Constants of group DRO."""

    eta: float = setting("step size of the groups' weights", 0.01, gt=0)


class GroupDro(Recipe):
    """Distributionally robust training over the (class, group) cells:

        q_c <- q_c exp(eta l_c) / sum,    L = sum over cells c of q_c l_c

    with l_c the batch's mean cross-entropy of the cell, 0 where the batch has none of it, and q 1 / (C G) at first.
    As in the published code, without its adjustment for group sizes, cells that the data lack keep their share.
    """

    name = "groupdro"
    about = "the worst (class, group) of a batch count most"
    source = "Sagawa et al., ICLR 2020"
    Settings = GroupDroSettings
    needs_groups = True

    def __init__(self, *args: Any):
        super().__init__(*args)
        cells = self.data.num_classes * self.data.num_groups
        self._shares = torch.full((cells,), 1 / cells, device=self.data.device)
        self._numbers = torch.arange(cells, device=self.data.device)

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        losses = F.cross_entropy(self.net(images), self.data.labels[rows], reduction="none")
        # A product with the cells' indicators, not a scatter: its gradient is a sum in a fixed order.
        # Not one_hot either, which on CPUs looks at the largest index.
        member = (self.data.cells[rows][:, None] == self._numbers).to(losses.dtype)
        of_cell = losses @ member / member.sum(0).clamp(min=1)
        with torch.no_grad():
            self._shares *= (self.config.eta * of_cell).exp()
            self._shares /= self._shares.sum()
        return of_cell @ self._shares.to(of_cell.dtype)

    def tables(self) -> dict[str, Tensor]:
        return {"shares": self._shares}
