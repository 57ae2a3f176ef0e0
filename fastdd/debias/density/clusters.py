"""Groups where none are known: clusters of a bias embedding (FairDD, appendix M, "missing" labels)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fastdd.core import rng
from fastdd.core.text import one_of
from fastdd.debias.density.kde import check_embeddings

METHODS = ("kmeans", "dbscan")
_RESTARTS = 4


@dataclass(frozen=True)
class ClusterSettings:
    """How embeddings become groups.

    Attributes:
        method: ``kmeans``, or ``dbscan`` as in the paper (which does not say its settings).
        num_groups: of ``kmeans``; None: as many as there are classes, for a bias with one value a class.
        per_class: cluster every class by itself; otherwise all images together, so that a value of the bias that is
            rare in one class is found by the many that have it in another. (Adjusted Rand index against the true
            colours within classes, c-digits and C-MNIST at 95 % aligned: 1.00 together, 0.1 to 0.8 by class.)
        eps: of ``dbscan``: neighbours are this near, in the embedding's units.
        min_samples: of ``dbscan``: with so many neighbours, itself included, an image is inside a cluster.
        seed: of k-means' restarts.

    Raises:
        ValueError: a value out of its range, or an unknown method.
    """

    method: str = "kmeans"
    num_groups: int | None = None
    per_class: bool = False
    eps: float = 0.3
    min_samples: int = 5
    seed: int = 0

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"unknown clustering method {self.method!r}; {one_of(self.method, METHODS)}")
        if self.num_groups is not None and self.num_groups < 1:
            raise ValueError(f"num_groups must be at least 1, not {self.num_groups}")
        if not 0 < self.eps < math.inf:
            raise ValueError(f"eps must be finite and above 0, not {self.eps}")
        if self.min_samples < 1:
            raise ValueError(f"min_samples must be at least 1, not {self.min_samples}")


def pseudo_groups(embeddings: np.ndarray | Tensor, labels: np.ndarray, **settings: Any) -> tuple[np.ndarray, int]:
    """Clusters of embeddings as groups int64 [N], numbered from 0, and how many there are.

    Images that ``dbscan`` takes for noise go to the cluster with the nearest mean: as a group of their own, which
    counts as much as any, outliers of every kind would pull the synthetic images together. Where it finds no cluster
    at all, everything is group 0.

    Args:
        embeddings: [N, D].
        labels: int64 [N]; clusters within a class are what FairDD matches.
        **settings: of :class:`ClusterSettings`: method, num_groups, per_class, eps, min_samples, seed. With
            ``per_class`` group 1 of one class has nothing to do with group 1 of another.

    Raises:
        ValueError: a setting out of range, more groups than images, embeddings of another length, not 2-D or not
            finite.

    Deterministic on a machine and thread count. Memory of ``dbscan``: every pair of neighbours (60,000 images of ten
    tight groups: 3 GB).

    >>> pseudo_groups(np.array([[0.0], [0.1], [5.0]]), np.zeros(3, np.int64), num_groups=2)[1]
    2
    """
    chosen = ClusterSettings(**settings)
    x = check_embeddings(embeddings, len(labels)).cpu().numpy()
    num_groups = chosen.num_groups or int(labels.max()) + 1
    parts = [np.arange(len(labels))]
    if chosen.per_class:
        parts = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    fewest = min(map(len, parts))
    if chosen.method == "kmeans" and num_groups > fewest:
        raise ValueError(f"{num_groups} groups are more than the {fewest} images that they are to be found in")
    groups = np.zeros(len(labels), np.int64)
    for number, rows in enumerate(parts):
        if chosen.method == "kmeans":
            groups[rows] = _kmeans(x[rows], num_groups, rng.key(chosen.seed, "pseudo-groups", number) % 2**32)
        else:
            groups[rows] = dbscan(x[rows], chosen.eps, chosen.min_samples)
    return groups, int(groups.max()) + 1


def _kmeans(x: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(clusters, n_init=_RESTARTS, random_state=seed).fit_predict(x)


def dbscan(x: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """Clusters int64 [N] of rows [N, D], from 0; what is in none goes to the one with the nearest mean."""
    from sklearn.cluster import DBSCAN

    found = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(x)
    noise = found < 0
    if noise.all():
        return np.zeros(len(x), np.int64)
    means = np.stack([x[found == cluster].mean(0) for cluster in range(found.max() + 1)])
    squared = (means**2).sum(1) - 2 * x[noise] @ means.T
    found[noise] = squared.argmin(1)
    return found
