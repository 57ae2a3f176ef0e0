"""Learning from failure: images that a biased network gets wrong count more."""

from typing import Any

from torch import Tensor

from fastdd.core.settings import setting
from fastdd.training.base import Recipe, Settings
from fastdd.training.failure import LossTables


class LffSettings(Settings):
    """Constants of LfF."""

    q: float = setting("of the biased network's generalised cross-entropy: sharper with q", 0.7, gt=0, le=1)
    decay: float = setting("how much of an image's earlier losses counts against the last", 0.7, ge=0, lt=1)


class Lff(Recipe):
    """Two networks of one architecture, biased b and debiased d, side by side on the same images:

        L = mean of q p_y^q CE(f_b) + mean of w CE(f_d)

    w as :class:`fastdd.training.failure.LossTables` has it, of both networks' cross-entropies. f_d predicts. The
    published code's optimiser is Adam (0.001, batch 256, 100 epochs for digits and 200 for CIFAR).
    """

    name = "lff"
    about = "learning from failure: images that a biased network gets wrong count more"
    source = "Nam et al., NeurIPS 2020"
    Settings = LffSettings

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._biased = self._another("biased")
        self.modules = {"biased": self._biased}
        self._tables = LossTables(self.data.labels, self.data.num_classes, self.config.decay)

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        return self._tables.loss(rows, self._biased(images), self.net(images), self.config.q)

    def image_weights(self) -> dict[str, Tensor]:
        return {"loss": self._tables.weights()}

    def tables(self) -> dict[str, Tensor]:
        return self._tables.tensors()
