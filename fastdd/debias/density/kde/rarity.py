"""How well 1 / density tells bias-conflicting images from the others of their class."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rarity:
    """Of every image how rare it is in its class.

    Attributes:
        nats: float64 [N], log of 1 / density, in units of the median of its class.
        conflicting: bool [N], outside the largest group of its class; None where no groups are known.
        auc: of every class the area under the ROC curve of 1 / density as a detector of its conflicting images: the
            probability that a conflicting image is rarer than an aligned one, ties counting half; None for a class
            without either. None where no groups are known.
    """

    nats: np.ndarray
    conflicting: np.ndarray | None
    auc: list[float | None] | None


def rarity(log_density: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> Rarity:
    """The :class:`Rarity` of images with log densities [N], labels int64 [N] and, where known, groups int64 [N].

    Densities are compared within classes alone, as weights are.

    >>> rarity(np.log([8.0, 4.0, 4.0, 1.0]), np.zeros(4, np.int64), np.array([0, 0, 1, 0])).auc
    [0.5]
    """
    from sklearn.metrics import roc_auc_score

    nats = -log_density.astype(np.float64)
    conflicting = np.zeros(len(labels), bool)
    auc: list[float | None] = []
    for label in range(int(labels.max()) + 1):
        members = labels == label
        if not members.any():
            auc.append(None)
            continue
        nats[members] -= np.median(nats[members])
        if groups is not None:
            of_class = groups[members] != np.bincount(groups[members]).argmax()
            conflicting[members] = of_class
            both = 0 < of_class.sum() < len(of_class)
            auc.append(float(roc_auc_score(of_class, nats[members])) if both else None)
    return Rarity(nats, conflicting, auc) if groups is not None else Rarity(nats, None, None)
