"""Loss weighting: every (class, group) counts alike in the loss."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.debias.loss_weights import loss_weights
from fastdd.training.base import Recipe


class Lw(Recipe):
    """Cross-entropy with weights inverse to the number of images of the (class, group):

        L = mean over the batch of w_i CE_i,    w_i = n_y / (G_y n_{y,g})

    as experts with debias fairdd have them (:func:`fastdd.debias.loss_weights.loss_weights`): n_y images of class y in
    its G_y groups, so that their mean is 1 within every class.
    """

    name = "lw"
    about = "loss weighting: images count inversely to the size of their (class, group)"
    source = "Sagawa et al., ICML 2020 (importance weighting)"
    needs_groups = True

    def __init__(self, *args: Any):
        super().__init__(*args)
        labels, groups = self.data.labels.cpu().numpy(), self.data.groups.cpu().numpy()
        self._weights = torch.as_tensor(loss_weights("fairdd", labels, groups), device=self.data.device)

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        losses = F.cross_entropy(self.net(images), self.data.labels[rows], reduction="none")
        return (self._weights[rows] * losses).mean()
