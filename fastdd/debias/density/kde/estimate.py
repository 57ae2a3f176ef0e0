"""From embeddings to weights: segments, densities, scores and their softmax over a class."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdd import ops
from fastdd.core import ranks, rng
from fastdd.core.version import __version__
from fastdd.debias.density.kde.checks import check_embeddings, check_labels
from fastdd.debias.density.kde.doubts import cure_of_even_weights, warn
from fastdd.debias.density.kde.settings import KdeSettings
from fastdd.debias.density.kde.weights import KdeWeights


def _segments(labels: np.ndarray, settings: KdeSettings) -> tuple[Tensor, Tensor]:
    """Rows sorted by the segment that their density is taken over, int64 [N], and the segments' offsets."""
    classes = torch.from_numpy(labels)
    if settings.scope == "dataset":
        return torch.arange(len(labels)), torch.tensor([0, len(labels)])
    order = torch.argsort(classes, stable=True)
    counts = torch.bincount(classes)
    if settings.scope == "class":
        return order, torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    parts, sizes = [], []
    for label, rows in enumerate(order.split(counts.tolist())):
        rows = rows[rng.permutation(rng.key(settings.seed, "kde-batches", label), len(rows))]
        batches = rows.tensor_split(-(-len(rows) // settings.batch))  # even sizes
        parts += batches
        sizes += [len(batch) for batch in batches]
    return torch.cat(parts), torch.tensor([0, *sizes]).cumsum(0)


def _log_density(rows: Tensor, offsets: Tensor, settings: KdeSettings) -> tuple[Tensor, float | None]:
    """Of equation 3, float64, and the gap of its bounds. Each rank takes some rows, against all of their segments."""
    bandwidth, gap = math.sqrt(settings.variance), None
    first, last = _rows_of_this_rank(offsets.tolist(), settings.density == "exact" and rows.device.type == "cpu")
    if settings.density == "knn":
        how = {"bandwidth": bandwidth, "k": settings.k, "seed": settings.seed, "rows": (first, last)}
        neighbours = ops.knn_kde(rows, offsets=offsets.to(rows.device), **how)
        density, gap = neighbours.log_density, max(ranks.exchange(neighbours.gap))
    else:
        density = _exact(rows, offsets, first, last, bandwidth)
    if ranks.world() > 1:
        density = torch.from_numpy(np.concatenate(ranks.exchange(density.cpu().numpy())))
    # The paper's kernel has the normalisation of one dimension, whatever D.
    per_dimension = math.log(bandwidth) + math.log(2 * math.pi) / 2
    return density.double().cpu() + (rows.shape[1] - 1) * per_dimension, gap


def _exact(rows: Tensor, offsets: Tensor, first: int, last: int, bandwidth: float) -> Tensor:
    """Log-density of rows first..last-1, each against all of its segment."""
    parts, whole = [], []
    for start, end in itertools.pairwise(offsets.tolist()):
        if first <= start and end <= last:
            whole += [start, end]
        elif first < end and start < last:
            queries = rows[max(first, start) : min(last, end)]
            parts.append((max(first, start), ops.kde(rows[start:end], queries, bandwidth=bandwidth)))
    if whole:
        ends = torch.tensor([whole[0], *whole[1::2]], device=rows.device) - whole[0]
        parts.append((whole[0], ops.kde(rows[whole[0] : whole[-1]], bandwidth=bandwidth, offsets=ends)))
    return torch.cat([rows.new_empty(0), *(part for _, part in sorted(parts, key=lambda part: part[0]))])


def _rows_of_this_rank(ends: list[int], symmetric: bool) -> tuple[int, int]:
    """The rows whose densities this rank takes: those of whole segments, where there are enough of them.

    ``symmetric``: a pair within a segment is computed once for both its rows, but not where the segment is cut, which
    so pays off for three ranks and more.
    """
    sizes = np.diff(ends)
    if len(sizes) * (1 + symmetric) >= ranks.world():
        segments = ranks.share((sizes.astype(float) ** 2).tolist())[ranks.rank()]
        return ends[segments.start], ends[segments.stop]
    rows = ranks.share(sizes.repeat(sizes).tolist())[ranks.rank()]
    return rows.start, rows.stop


def _scores(log_density: Tensor, settings: KdeSettings) -> Tensor:
    """1 / density of the images of a segment in the units of ``score``, clipped; float64, from logarithms.

    An image is in its own density, as in equation 3, so 1 / density is at most n / K(0) and nothing overflows.
    """
    logs = -log_density
    if settings.score == "median":
        logs = logs - logs.quantile(0.5)
    elif settings.score == "mean":
        logs = logs - (logs.logsumexp(0) - math.log(len(logs)))
    elif settings.score == "minmax":
        relative = (logs - logs.max()).exp()
        spread = relative - relative.min()
        logs = (spread / spread.max().clamp(min=torch.finfo(torch.float64).tiny)).log()
    if settings.clip is not None:
        logs = logs.clamp(max=math.log(settings.clip))
    return logs.exp()


def _normalised(scores: Tensor, settings: KdeSettings) -> Tensor:
    """Weights of a class's images, which sum to 1."""
    if settings.normalise == "sum":
        largest = scores.max()
        if largest == 0:  # minmax of images that are all alike
            return torch.full_like(scores, 1 / len(scores))
        return (scores / largest) / (scores / largest).sum()
    # The largest first: differences can't overflow, however low the temperature.
    return torch.softmax((scores - scores.max()) / settings.temperature, 0)


def kde_weights(
    embeddings: np.ndarray | Tensor,
    labels: np.ndarray,
    *,
    class_names: Sequence[str] | None = None,
    **settings: Any,
) -> KdeWeights:
    """Weights that count images of a class by how rare they are in it: softmax(clip(1 / density) / temperature).

        f(x_i) = (1/n) sum_j exp(-|z_i - z_j|^2 / (2 sigma^2)) / (sigma sqrt(2 pi))     (equation 3)
        w_i = softmax over the class of min(s_i, clip) / temperature,  s_i = 1 / f(x_i) in units of ``score``
        w_i = min(s_i, clip) / sum over the class of min(s_j, clip),   with ``normalise="sum"``

    An image is in its own density, as in the equation: without itself, one that is alone would have no density at all.
    The ranks of a job share the densities and all return the same weights. A class's weights are normalised over the
    class. A batch of the class takes them in proportion, which is the
    softmax over that batch.

    Args:
        embeddings: [N, D], one row a training image; :func:`fastdd.debias.density.embedding.train` makes them.
        labels: int64 [N].
        class_names: for messages.
        **settings: of :class:`KdeSettings`: variance, temperature, score, clip, scope, density, k, batch, seed,
            normalise.

    Raises:
        ValueError: a setting out of range, embeddings of another length, not 2-D or not finite, a class with fewer
            than 2 images.
        RuntimeError: density ``knn`` without FAISS.

    Warns:
        RuntimeWarning: a class whose weights amount to fewer than 5 images, or weights that are all alike; what is
            said is in ``metadata["warnings"]`` too.

    Deterministic. On several ranks the same bits as on one where each takes whole segments (classes, batches), as is so
    while there are as many segments as ranks; else equal to rounding, as are those of density ``knn``. Cost: the
    density's, n^2 D / 2 multiply-adds a class on the CPU (C-MNIST: 0.2 s on two cores).

    >>> z = np.array([0.0] * 18 + [1.0] * 2)[:, None]
    >>> weights = kde_weights(z, np.zeros(20, np.int64), clip=2.0).weights
    >>> weights[[0, -1]].round(3), (weights[-1] / weights[0]).round(2), np.exp((2 - 1) / 0.5).round(2)
    (array([0.031, 0.225], dtype=float32), np.float32(7.39), np.float64(7.39))
    """
    config = KdeSettings(**settings)
    check_labels(labels)
    rows = check_embeddings(embeddings, len(labels))
    config.check_backend(rows.device)
    order, offsets = _segments(labels, config)
    sorted_density, gap = _log_density(rows[order.to(rows.device)], offsets, config)
    scores = torch.empty_like(sorted_density)
    log_density = torch.empty_like(sorted_density)
    log_density[order] = sorted_density
    scores[order] = torch.cat([_scores(part, config) for part in sorted_density.split(offsets.diff().tolist())])
    weights = torch.empty_like(scores)
    for label in range(int(labels.max()) + 1):
        members = torch.from_numpy(labels == label)
        weights[members] = _normalised(scores[members], config)
    about = asdict(config)
    if config.normalise == KdeSettings.normalise:
        del about["normalise"]  # files from before there was another are the same
    metadata = {
        "kde": about,
        "gap": gap,
        "versions": {"fastdd": __version__, "torch": torch.__version__},
    }
    result = KdeWeights(weights.float().numpy(), log_density.float().numpy(), rows.cpu().numpy(), metadata)
    sizes = offsets.diff().repeat_interleave(offsets.diff()).double()
    # In units of the kernel's height: 1 where an image is alone, the segment's size where all are in one place.
    near = (sorted_density + math.log(math.sqrt(2 * math.pi * config.variance)) + sizes.log()).exp()
    cure = cure_of_even_weights(config, near, sizes)
    told = warn(result.diagnostics(labels), class_names, cure)
    return replace(result, metadata={**metadata, "warnings": told}) if told else result
