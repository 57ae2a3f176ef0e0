"""Deep feature reweighting: a new last layer, fitted on held-out images of balanced groups."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.core import rng
from fastdd.core.settings import setting
from fastdd.models.network import Network
from fastdd.training.base import Settings, TrainingImages
from fastdd.training.erm import Erm

_INVERSE_STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
_BATCH = 256


class DfrSettings(Settings):
    """Constants of DFR."""

    fits: int = setting("fits on balanced subsets whose coefficients are averaged", 20, ge=1)


class LastLayer(nn.Module):
    """A network's features of unit length, standardised, under another linear layer: one affine map of them.

    Args:
        net: whose embedding it is.
        weight: float32 [C, D].
        bias: float32 [C].
    """

    def __init__(self, net: nn.Module, weight: Tensor, bias: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def embed(self, images: Tensor) -> Tensor:
        """What the last layer sees, [N, D]."""
        return F.normalize(self.net.embed(images), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return F.linear(self.embed(images), self.weight, self.bias)


class Dfr(Erm):
    """Plain training, then :meth:`finish`: L1 logistic regressions on the features of held-out images.

    The inverse strength is chosen from 3, 1, 0.3, ... 0.003 by the worst group's accuracy on one half of the held-out
    images, fitted on as many images of every (class, group) of the other half; the coefficients of ``fits`` such fits
    on all of them are averaged. Features have unit length and are standardised; a class is fitted against all others.
    """

    name = "dfr"
    about = "plain training, then a last layer fitted on held-out images of balanced groups"
    source = "Kirichenko, Izmailov and Wilson, ICLR 2023"
    Settings = DfrSettings
    needs_groups = True
    needs_validation = True
    net_predicts = False

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._last_layer: LastLayer | None = None

    def finish(self, validation: TrainingImages | None) -> None:
        """Fit the last layer on held-out images, whose groups are known.

        Raises:
            ValueError: groups that are not known, or a (class, group) with fewer than 2 of them.
        """
        if validation is None or validation.groups is None:
            raise ValueError("training dfr fits on held-out images whose groups are known, and these are not")
        cells = validation.cells.cpu().numpy()
        present, counts = np.unique(cells, return_counts=True)
        if counts.min() < 2:
            cell = divmod(int(present[counts.argmin()]), validation.num_groups)
            raise ValueError(f"training dfr needs 2 held-out images of every class and group: {cell} has one")
        labels, classes = validation.labels.cpu().numpy(), validation.num_classes
        features = _features(self.net, validation)
        mean, std = features.mean(0), features.std(0)
        std[std == 0] = 1
        features = (features - mean) / std
        halves = np.asarray(rng.permutation(rng.key(*self._key, "dfr-halves"), len(labels)))
        fitted, judged = halves[: len(halves) // 2], halves[len(halves) // 2 :]
        rows = fitted[_balanced(cells[fitted], (*self._key, "dfr-half"))]

        def worst(strength: float) -> float:
            weight, bias = _regression(features[rows], labels[rows], classes, strength)
            right = (features[judged] @ weight.T + bias).argmax(1) == labels[judged]
            return min(right[cells[judged] == cell].mean() for cell in np.unique(cells[judged]))

        strength = max(_INVERSE_STRENGTHS, key=worst)
        weights, biases = [], []
        for number in range(self.config.fits):
            rows = _balanced(cells, (*self._key, "dfr-fit", number))
            weight, bias = _regression(features[rows], labels[rows], classes, strength)
            weights.append(weight)
            biases.append(bias)
        weight = np.mean(weights, 0) / std
        bias = np.mean(biases, 0) - weight @ mean
        dtype, device = (
            self.net.embed(validation.read(torch.zeros(1, dtype=torch.int64), self._key)).dtype,
            validation.device,
        )
        self._last_layer = LastLayer(
            self.net,
            torch.as_tensor(weight, dtype=dtype, device=device),
            torch.as_tensor(bias, dtype=dtype, device=device),
        )

    def predictor(self) -> nn.Module:
        return self._last_layer or self.net

    @classmethod
    def network_of(cls, predictor: LastLayer) -> nn.Module:
        """The network before its last layer was fitted anew."""
        return predictor.net

    @classmethod
    def empty_predictor(cls, make: Callable[[], Network], num_classes: int) -> nn.Module:
        net = make()
        return LastLayer(net, torch.zeros(num_classes, net.embedding_dim), torch.zeros(num_classes))


@torch.no_grad()
def _features(net: nn.Module, held_out: TrainingImages) -> np.ndarray:
    """float64 [N, D], of unit length; the network is left in evaluation mode."""
    net.eval()
    rows = torch.arange(len(held_out), device=held_out.images.pixels.device)
    parts = [F.normalize(net.embed(held_out.images.read(some)), dim=1).double() for some in rows.split(_BATCH)]
    return torch.cat(parts).cpu().numpy()


def _balanced(cells: np.ndarray, key: tuple) -> np.ndarray:
    """Rows of as many images of every cell as the smallest has, drawn from a key."""
    present, counts = np.unique(cells, return_counts=True)
    least = counts.min()
    parts = []
    for cell in present:
        rows = np.flatnonzero(cells == cell)
        parts.append(rows[np.asarray(rng.permutation(rng.key(*key, int(cell)), len(rows)))[:least]])
    return np.concatenate(parts)


def _regression(
    features: np.ndarray, labels: np.ndarray, classes: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weight [C, D] and bias [C] of logistic regressions with an L1 penalty, one class against the rest."""
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, -np.inf)
    for label in np.unique(labels):
        fit = LogisticRegression(l1_ratio=1, C=strength, solver="liblinear", random_state=0)
        fit.fit(features, labels == label)
        weight[label], bias[label] = fit.coef_[0], fit.intercept_[0]
    return weight, bias
