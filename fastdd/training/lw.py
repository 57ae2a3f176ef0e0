"""Loss weighting: every (class, group) counts alike in the loss."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.training.base import Recipe


class Lw(Recipe):
    """Cross-entropy with weights inverse to the number of images of the (class, group):

        L = mean over the batch of w_i CE_i,    w_i = n_y / (G_y n_{y,g})

    with n_y images of class y in its G_y groups: their mean is 1 within every class.
    """

    name = "lw"
    about = "loss weighting: images count inversely to the size of their (class, group)"
    source = "Sagawa et al., ICML 2020 (importance weighting)"
    needs_groups = True

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._weights = cell_weights(self.data.labels, self.data.cells, self.data.num_classes, self.data.num_groups)

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        return (
            self._weights[rows] * F.cross_entropy(self.net(images), self.data.labels[rows], reduction="none")
        ).mean()

    def image_weights(self) -> Tensor:
        return self._weights


def cell_weights(labels: Tensor, cells: Tensor, num_classes: int, num_groups: int) -> Tensor:
    """float32 [N], n_y / (G_y n_{y,g}): every group that a class has counts alike, with mean 1 within the class.

    >>> cell_weights(torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 0, 1]), 1, 2)
    tensor([0.6667, 0.6667, 0.6667, 2.0000])
    """
    counts = torch.bincount(cells, minlength=num_classes * num_groups).double()
    of_class = counts.view(num_classes, num_groups)
    present = (of_class > 0).sum(1)
    return (of_class.sum(1)[labels] / (present[labels] * counts[cells])).float()
