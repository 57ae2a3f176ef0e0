"""How many fake images training has of every (class, group), and which (From Fake to Real: Qraitem et al., ECCV 2024).

USB   tops every cell up to the largest:   max n - n_{y,b} of each;   N: their sum
ASB, FFR   as many of every cell:          floor(N / number of cells)
"""

import bisect
from typing import Literal

import numpy as np

from fastdd.core import rng
from fastdd.data import Split

Use = Literal["none", "usb", "asb", "ffr"]


def fake_counts(counts: np.ndarray, use: Use, scale: float = 1.0) -> np.ndarray:
    """Fake images of every class and group, int64 [C, G].

    Args:
        counts: int64 [C, G], real training images.
        use: ``none``, ``usb`` (uniform sampling of the biased set), ``asb`` (as many of every cell beside the real
            ones) or ``ffr`` (the same, before the real ones).
        scale: how many times N. For USB the paper says nothing but 1: the size that cells are topped up to, those that
            are smaller, is the largest with which all need no more than so many times N.

    >>> counts = np.array([[90, 10], [20, 80]])
    >>> fake_counts(counts, "usb").tolist(), fake_counts(counts, "ffr").tolist(), fake_counts(counts, "usb", 2).tolist()
    ([[0, 80], [70, 10]], [[40, 40], [40, 40]], [[40, 120], [110, 50]])
    >>> fake_counts(counts, "usb", 0.5).tolist()
    [[0, 45], [35, 0]]
    """
    if use == "none":
        return np.zeros_like(counts)
    missing = counts.max() - counts
    total = int(missing.sum())
    if use == "usb":
        return missing + int((scale - 1) * total / counts.size) if scale >= 1 else _topped_up(counts, scale * total)
    return np.full_like(counts, int(scale * total / counts.size))


def _topped_up(counts: np.ndarray, most: float) -> np.ndarray:
    """What cells lack of the largest size that takes at most ``most`` images of all of them."""
    sizes = range(int(counts.min()), int(counts.max()) + 1)
    size = sizes[bisect.bisect_right(sizes, most, key=lambda each: (each - counts).clip(0).sum()) - 1]
    return (size - counts).clip(0)


def draw_fakes(fakes: Split, wanted: np.ndarray, names: tuple[tuple[str, ...], tuple[str, ...]], key: int) -> Split:
    """So many of every class and group, drawn without replacement from a key, in the order of classes and groups.

    Args:
        fakes: what there is.
        wanted: int64 [C, G].
        names: of classes and groups, for messages.
        key: which are drawn follows from it.

    Raises:
        ValueError: fewer than wanted of a cell, which is named.
    """
    found = fakes.counts(*wanted.shape)
    short = np.argwhere(found < wanted)
    if len(short):
        (y, b), (classes, groups) = short[0], names
        raise ValueError(
            f"{wanted[y, b]:,} fake images of class {classes[y]!r}, group {groups[b]!r} are needed, and there are "
            f"{found[y, b]:,}: lower the scale, or give more"
        )
    rows = []
    for cell, lane in enumerate(rng.lanes(key, wanted.size)):
        y, b = divmod(cell, wanted.shape[1])
        of_cell = np.flatnonzero((fakes.labels == y) & (fakes.groups == b))
        order = np.asarray(rng.permutation(int(lane), len(of_cell)))
        rows.append(of_cell[order[: wanted[y, b]]])
    return fakes.take(np.concatenate(rows))


def joined(real: Split, fakes: Split, num_groups: int) -> Split:
    """Real images and then fake ones, whose groups are (group, fake): b of real images, G + b of fake ones."""
    return Split(
        np.concatenate([real.images, fakes.images]),
        np.concatenate([real.labels, fakes.labels]),
        np.concatenate([real.groups, fakes.groups + num_groups]),
    )
