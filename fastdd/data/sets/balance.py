"""Which rows of a split to keep, so that its classes and groups have the sizes that are asked for."""

import numpy as np

from fastdd.data.files.plan import Rows


def even_cells(
    labels: np.ndarray, groups: np.ndarray, random: np.random.RandomState, most: int | None = None
) -> np.ndarray:
    """Rows (sorted) that leave every cell, class and group, the size of the smallest that has any.

    Args:
        labels, groups: int64 [N].
        random: drawn from, cell by cell; advanced.
        most: of a cell, at most so many.
    """
    cells = labels * (groups.max() + 1) + groups
    sizes = np.bincount(cells)
    size = min(sizes[sizes > 0].min(), len(labels) if most is None else most)
    rows = [random.permutation(np.flatnonzero(cells == cell))[:size] for cell in np.flatnonzero(sizes)]
    return np.sort(np.concatenate(rows))


def drop_to_ratio(labels: np.ndarray, groups: np.ndarray, ratio: float, random: np.random.RandomState) -> np.ndarray:
    """Rows (sorted) that are left when images are dropped until each class's aligned group is ``ratio`` of it.

    From Fake to Real (section 4: "we vary the bias of the majority groups"). The aligned group of a class is the one
    that it has more of than the whole set does, in proportion: argmax over g of P(g | class) / P(g). What is dropped
    are images of the other groups, in proportion to their sizes, or, where they are too few, of the aligned one.

    Raises:
        ValueError: a class of the aligned group only, of which a share below 1 would leave nothing.

    >>> labels, groups = np.repeat([0, 1], 100), np.tile(np.repeat([0, 1], [60, 40]), 2)
    >>> groups[100:] = 1 - groups[100:]
    >>> rows = drop_to_ratio(labels, groups, 0.75, np.random.RandomState(0))
    >>> np.bincount(labels[rows] * 2 + groups[rows]).tolist()
    [60, 20, 20, 60]
    """
    counts = np.zeros((labels.max() + 1, groups.max() + 1))
    np.add.at(counts, (labels, groups), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    aligned_groups = np.argmax(share / np.maximum(counts.sum(0) / counts.sum(), 1e-12), 1)
    kept = []
    for label in np.flatnonzero(counts.sum(1)).tolist():
        group = aligned_groups[label]
        aligned = random.permutation(np.flatnonzero((labels == label) & (groups == group)))
        others = random.permutation(np.flatnonzero((labels == label) & (groups != group)))
        if ratio < 1 and not len(others):
            raise ValueError(
                f"class {label} has images of group {group} only, and a share of {ratio:g} would leave none of it"
            )
        if len(aligned) <= ratio * (len(aligned) + len(others)):
            kept += [aligned, _spread(others, groups[others], round(len(aligned) * (1 - ratio) / ratio))]
        else:
            kept += [aligned[: round(len(others) * ratio / (1 - ratio))], others]
    return np.sort(np.concatenate(kept))


def dropped(rows: Rows, bias_ratio: float | None, seed: int) -> Rows:
    """:func:`drop_to_ratio` of image files, by numpy's ``RandomState(seed)``; all of them where the ratio is None."""
    if bias_ratio is None or not len(rows):
        return rows
    return rows.take(drop_to_ratio(rows.labels, rows.groups, bias_ratio, np.random.RandomState(seed)))


def _spread(rows: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """``count`` of the rows, each group's part in proportion to its size: every so many-th of them by group."""
    ordered = rows[np.argsort(groups, kind="stable")]
    return ordered[np.floor((np.arange(count) + 0.5) * len(rows) / max(count, 1)).astype(np.int64)]
