"""Groups where none are known: clusters of a bias embedding (FairDD, appendix M)."""

import numpy as np
from torch import Tensor

from fastdd import rng
from fastdd.debias.kde import check_embeddings

METHODS = ("kmeans", "dbscan")
_RESTARTS = 4


def pseudo_groups(
    embeddings: np.ndarray | Tensor,
    labels: np.ndarray,
    *,
    method: str = "kmeans",
    num_groups: int | None = None,
    per_class: bool = False,
    eps: float = 0.3,
    min_samples: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, int]:
    x = check_embeddings(embeddings, len(labels)).cpu().numpy()
    classes = int(labels.max()) + 1
    num_groups = classes if num_groups is None else num_groups
    groups = np.zeros(len(labels), np.int64)
    parts = [np.flatnonzero(labels == label) for label in range(classes)] if per_class else [np.arange(len(labels))]
    for number, rows in enumerate(parts):
        if method == "kmeans":
            groups[rows] = _kmeans(x[rows], num_groups, rng.key(seed, "pseudo-groups", number) % 2**32)
        else:
            groups[rows] = _dbscan(x[rows], eps, min_samples)
    return groups, int(groups.max()) + 1


def _kmeans(x: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=_RESTARTS, random_state=seed).fit_predict(x)


def _dbscan(x: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    from sklearn.cluster import DBSCAN

    found = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(x)
    return np.where(found < 0, found.max() + 1, found)
