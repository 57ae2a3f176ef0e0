"""k-means by FAISS where it is, by scikit-learn otherwise."""

import importlib

import numpy as np
import torch
from torch import Tensor

from fastdd.ops import _faiss

BACKENDS = ("auto", "faiss", "sklearn")
# Of Lloyd's iterations; DREAM's library has as many. Fewer where nothing moves any more.
_ITERATIONS = 100
_TOLERANCE = 1e-4
_SEEDS = 2**31


def kmeans(x: Tensor, clusters: int, seed: int, *, backend: str = "auto") -> Tensor:
    """Centroids of a k-means clustering (Lloyd, begun as greedy k-means++), Euclidean.

    Args:
        x: float32 [N, D], finite, N >= clusters >= 1.
        seed: of where it begins; any integer.
        backend: ``faiss``, ``sklearn``, or ``auto``: FAISS where it can take x's device.

    Returns:
        float32 [clusters, D], on x's device.

    Raises:
        ValueError: fewer rows than clusters, or an unknown backend.
        RuntimeError: FAISS asked for by name where it is not.

    Deterministic in the seed, on a machine and thread count; not the same for both backends. Cost: up to 100 times
    2 N D clusters operations.

    >>> kmeans(torch.tensor([[0.0], [0.2], [5.0]]), 2, seed=0).sort(0).values
    tensor([[0.1000],
            [5.0000]])
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r} of k-means; one of: {', '.join(BACKENDS)}")
    if not 1 <= clusters <= len(x):
        raise ValueError(f"{clusters} clusters of {len(x)} rows: there must be at least 1, and at most as many as rows")
    missing = _faiss.missing(x.device.type) if backend != "sklearn" else "not asked for"
    if backend == "faiss" and missing:
        raise RuntimeError(missing)
    rows = x.detach().cpu().contiguous()
    if clusters == len(rows):
        return rows.to(x.device, copy=True)
    found = (_by_sklearn if missing else _by_faiss)(rows.numpy(), clusters, seed % _SEEDS, x.device)
    return torch.as_tensor(found, dtype=x.dtype, device=x.device)


def _by_faiss(rows: np.ndarray, clusters: int, seed: int, device: torch.device) -> np.ndarray:
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(torch.get_num_threads())
    # FAISS's own start, rows at random, ends at up to twice the inertia; its own k-means++ is not the greedy one.
    start = rows[greedy_start(rows, clusters, seed)]
    settings = {"niter": _ITERATIONS, "seed": seed, "gpu": device.type == "cuda"}
    if hasattr(faiss.ClusteringParameters, "early_stop_threshold"):  # of 1.13 and later
        settings["early_stop_threshold"] = _TOLERANCE
    # Its own limit is 256 rows a cluster: of more it would draw some.
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": len(rows)}
    found = faiss.Kmeans(rows.shape[1], clusters, **settings, **limits)
    found.train(rows, init_centroids=start)
    return found.centroids


def greedy_start(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """The rows that k-means++ begins at (Arthur and Vassilvitskii, 2007), each the best of a few draws.

    The first is any; each other is drawn in proportion to the squared distance to the nearest of those before it,
    2 + log(clusters) times, and the one kept with which these distances add up to the least. With the draws of
    scikit-learn's ``kmeans_plusplus``, whose rows these are but where rounding decides: that one makes all rows float64
    anew for every cluster, which took ten times as long as all of Lloyd's iterations.

    Args:
        rows: float32 [N, D], N >= clusters.
        clusters, seed: as :func:`kmeans` takes them; the seed below 2^31.

    Returns:
        int64 [clusters].

    Deterministic on a machine and thread count. Cost: 2 N D operations a draw, or a row where these are fewer.
    """
    random, trials = np.random.RandomState(seed), 2 + int(np.log(clusters))
    n, x = len(rows), torch.from_numpy(rows)
    x = x - x.mean(0)  # distances are small differences of squares: the mean's would eat their last bits
    squares = x.square().sum(1)
    products = x @ x.T if n <= trials * clusters else None  # fewer than those of all draws

    def distances(to: np.ndarray) -> torch.Tensor:
        some = torch.from_numpy(to)
        of_some = x[some] @ x.T if products is None else products[some]
        return (squares - 2 * of_some + squares[some, None]).clamp_(min=0)

    start = np.empty(clusters, np.int64)
    start[0] = random.choice(n, p=np.full(n, 1 / n))
    closest = distances(start[:1])[0]
    for number in range(1, clusters):
        cumulated = closest.double().cumsum(0).numpy()
        drawn = np.searchsorted(cumulated, random.uniform(size=trials) * cumulated[-1]).clip(max=n - 1)
        of_each = torch.minimum(distances(drawn), closest)
        best = of_each.sum(1).argmin().item()
        start[number], closest = drawn[best], of_each[best]
    return start


def _by_sklearn(rows: np.ndarray, clusters: int, seed: int, device: torch.device) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(clusters, n_init=1, max_iter=_ITERATIONS, random_state=seed).fit(rows).cluster_centers_
