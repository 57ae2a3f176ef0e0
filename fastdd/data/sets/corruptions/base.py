"""What the corruptions share: sizes, an image's own draws, rounding and blurs."""

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy import ndimage

SIZE = 32
LEVELS = 5
Randoms = list[np.random.RandomState]


def draws_of(randoms: Randoms, draw: Callable[[np.random.RandomState], np.ndarray]) -> np.ndarray:
    """A draw of every image's own, [N, ...]."""
    return np.stack([draw(random) for random in randoms])


def to_bytes(unit: np.ndarray) -> np.ndarray:
    """Values of 0..1, clipped, as the published code stores them: truncated, not rounded."""
    return (np.clip(unit, 0, 1) * 255).astype(np.uint8)


def gaussian(x: np.ndarray, sigma: float, mode: str = "nearest", truncate: float = 4) -> np.ndarray:
    """Gaussian blur of the last two axes; edges and cut-off are scikit-image's by default."""
    return ndimage.gaussian_filter(x, (0,) * (x.ndim - 2) + (sigma, sigma), mode=mode, truncate=truncate)


@functools.lru_cache
def magnification(factor: float) -> np.ndarray:
    """[32, 32]: a row or column of an image to that of its magnified centre, as published (a linear map)."""
    kept = math.ceil(SIZE / factor)
    start = (SIZE - kept) // 2
    enlarged = ndimage.zoom(np.eye(kept), (factor, 1), order=1)
    matrix = np.zeros((SIZE, SIZE))
    trim = (len(enlarged) - SIZE) // 2
    matrix[:, start : start + kept] = enlarged[trim : trim + SIZE]
    return matrix
