"""What weights do to every class."""

from dataclasses import dataclass

import numpy as np

from fastdd.debias.density.kde.checks import check_weights

# Four bins a decade of n * w, which is 1 for every image where all count alike.
_EDGES = 10.0 ** (np.arange(-16, 17) / 4)


@dataclass(frozen=True)
class Diagnostics:
    """What weights do to every class.

    Attributes:
        counts: images, int [C].
        ess: effective sample size (sum w)^2 / sum w^2: n where all count alike, 1 where one counts alone; [C].
        largest: the largest n * w, [C].
        edges: of the histogram's bins, n * w, log-spaced, [B + 1]; the first and last bin take what is beyond.
        histogram: images per class and bin, int [C, B].
        conflict_share: of bias-conflicting images, those outside the largest group of their class; [C]. None where no
            groups are known.
        conflict_mass: weight on them, [C]; likewise.
        conflict_histogram: ``histogram`` of them alone; likewise.
        gap: how far apart the bounds of the density are at worst, in nats; None for an exact one.
    """

    counts: list[int]
    ess: list[float]
    largest: list[float]
    edges: list[float]
    histogram: list[list[int]]
    conflict_share: list[float] | None = None
    conflict_mass: list[float] | None = None
    conflict_histogram: list[list[int]] | None = None
    gap: float | None = None


def diagnose(
    weights: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, gap: float | None = None
) -> Diagnostics:
    """The :class:`Diagnostics` of weights [N] of images with labels int64 [N] and, where known, groups int64 [N].

    Weights of any scale: they are normalised over each class first.

    >>> made = diagnose(np.array([1.0, 1.0, 2.0]), np.zeros(3, np.int64), np.array([0, 0, 1]))
    >>> made.ess, made.conflict_mass
    ([2.6666666666666665], [0.5])
    """
    check_weights(weights, len(labels), labels)
    counts, ess, largest, histogram = [], [], [], []
    share, mass, of_conflicting = [], [], []

    def bins(values: np.ndarray) -> list[int]:
        inside = np.clip(values, _EDGES[0], np.nextafter(_EDGES[-1], 0))
        return np.histogram(inside, _EDGES)[0].tolist()

    for label in range(int(labels.max()) + 1):
        members = labels == label
        w = weights[members].astype(np.float64)
        w /= w.sum()
        counts.append(len(w))
        ess.append(float(1 / (w**2).sum()))
        largest.append(float(len(w) * w.max()))
        histogram.append(bins(len(w) * w))
        if groups is not None:
            conflicting = groups[members] != np.bincount(groups[members]).argmax()
            share.append(float(conflicting.mean()))
            mass.append(float(w[conflicting].sum()))
            of_conflicting.append(bins(len(w) * w[conflicting]))
    known = (share, mass, of_conflicting) if groups is not None else (None, None, None)
    return Diagnostics(counts, ess, largest, _EDGES.tolist(), histogram, *known, gap)
