"""Plain training: every image counts alike."""

import torch.nn.functional as F
from torch import Tensor

from fastdd.training.base import Recipe


class Erm(Recipe):
    """Empirical risk minimisation: the mean cross-entropy of a batch."""

    name = "erm"
    about = "plain training: every image counts alike"
    source = "the mean cross-entropy"
    needs_classes = False

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        return F.cross_entropy(self.net(images), self.data.labels[rows])
