"""What a debias mode is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastdd.debias.segments import Batch, Segments


@dataclass(frozen=True)
class Mode:
    """A way to handle bias.

    Attributes:
        about: one line for people.
        segments: a batch's weighted segments, which are all that a method knows of bias.
        needs: what of the training images it goes by besides their classes: nothing, their protected groups, weights
            (:mod:`fastdd.debias.density.kde`), or what the network of the step makes of them.
        in_training: how much every image's loss counts where a network is trained on the real data (experts), from
            labels, groups and, where the mode needs them, weights: float64 [N], which sum to 1 over every class; None
            for all alike. A mode without it is for matching only.
        waits: whether its segments are made by the host, or in a number that only the device knows, so that a step with
            it waits for a GPU.
    """

    about: str
    segments: Callable[[Batch], Segments]
    needs: Literal["nothing", "groups", "weights", "embeddings"]
    in_training: Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray | None] | None = None
    waits: bool = False


def alike(labels: np.ndarray, groups: np.ndarray, weights: np.ndarray | None) -> None:
    """``in_training``: every image counts alike."""


def by_weight(labels: np.ndarray, groups: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """``in_training``: images count by their weights."""
    share = np.asarray(weights, dtype=np.float64)
    return share / np.bincount(labels, share)[labels]


def groups_alike(labels: np.ndarray, groups: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """``in_training``: each of the G_y groups that class y has counts alike, 1 / (G_y n_{y,g})."""
    counts = np.zeros((int(labels.max()) + 1, int(groups.max()) + 1), np.int64)
    np.add.at(counts, (labels, groups), 1)
    return 1 / ((counts > 0).sum(1)[labels] * counts[labels, groups])
