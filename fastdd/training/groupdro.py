"""Group DRO: the groups that do worst count most."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.core.settings import setting
from fastdd.training.base import Recipe, Settings
from fastdd.training.resample import EvenDraws


class GroupDroSettings(Settings):
    """Constants of group DRO."""

    eta: float = setting("step size of the groups' weights", 0.01, gt=0)
    balanced: bool = setting("draw every (class, group) as often as every other, as in the paper", False)


class GroupDro(Recipe):
    """Distributionally robust training over the (class, group) cells:

        q_c <- q_c exp(eta l_c) / sum,    L = sum over cells c of q_c l_c

    with l_c the batch's mean cross-entropy of the cell, 0 where the batch has none of it, and q 1 / (C G) at first.
    As in the published code, without its adjustment for group sizes, cells that the data lack keep their share.
    ``balanced`` draws batches as :class:`fastdd.training.resample.Resample` does: the paper's algorithm draws a cell,
    then an image of it, and its published commands do (``--reweight_groups``); From Fake to Real's code does not.
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
        self._draws = EvenDraws(self.data.cells) if self.config.balanced else None
        self._numbers = torch.arange(cells, device=self.data.device)

    def order(self, key: tuple) -> Tensor | None:
        return None if self._draws is None else self._draws.rows(key)

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        losses = F.cross_entropy(self.net(images), self.data.labels[rows], reduction="none")
        # A product with the cells' indicators, not a scatter: its gradient is a sum in a fixed order.
        # Not one_hot either, which on CPUs looks at the largest index.
        member = (self.data.cells[rows][:, None] == self._numbers).to(losses.dtype)
        of_cell = (losses[None] @ member)[0] / member.sum(0).clamp(min=1)
        with torch.no_grad():
            self._shares *= (self.config.eta * of_cell).exp()
            self._shares /= self._shares.sum()
        return of_cell @ self._shares.to(of_cell.dtype)

    def tables(self) -> dict[str, Tensor]:
        return {"shares": self._shares}
