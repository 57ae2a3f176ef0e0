"""CutMix (Yun et al., ICCV 2019): a batch whose images have a rectangle of others pasted in."""

import numpy as np
from torch import Tensor

from fastdd.core import rng


def rectangle(size: tuple[int, int], kept: float, row: int, column: int) -> tuple[int, int, int, int]:
    """First and last (excluded) row, and likewise column, of a rectangle of ``1 - kept`` of an image's area, centred at
    a pixel and cut off at the borders: (top, bottom, left, right), as published."""
    part, ends = (1.0 - kept) ** 0.5, []
    for side, centre in zip(size, (row, column), strict=True):
        half = int(side * part) // 2
        ends += [max(centre - half, 0), min(centre + half, side)]
    return tuple(ends)


def cutmix(images: Tensor, key: int, probability: float) -> tuple[Tensor, Tensor, float] | None:
    """With ``probability``, the batch mixed: one rectangle for all images, its share of their area uniform (beta = 1).

    The loss of mixed images is ``kept`` times that of their own labels and the rest of the labels of ``order``.

    Args:
        images: [N, C, H, W].
        key: of the draw (:func:`fastdd.core.rng.key`); read on the host, so that nothing waits for a GPU.

    Returns:
        The images, mixed (a new tensor); int64 [N], whose rectangles they have; the share of their own pixels, from 0
        to 1. None where the batch stays as it is.
    """
    mix, kept, row, column = rng.uniform_array(key, 4).astype(np.float64).tolist()
    if mix >= probability:
        return None
    height, width = images.shape[-2:]
    top, bottom, left, right = rectangle((height, width), kept, int(row * height), int(column * width))
    order = rng.permutation(rng.key(key, "order"), len(images), images.device)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
    return mixed, order, 1 - (bottom - top) * (right - left) / (height * width)
