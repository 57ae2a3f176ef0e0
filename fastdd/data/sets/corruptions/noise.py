"""Noise: Gaussian, shot, impulse and speckle."""

import numpy as np

from fastdd.data.sets.corruptions.base import Randoms, draws_of, to_bytes


def gaussian_noise(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """x + N(0, c), c = .04 .06 .08 .09 .10; any size of images."""
    c = (0.04, 0.06, 0.08, 0.09, 0.10)[level - 1]
    return to_bytes(x / 255 + draws_of(randoms, lambda random: random.normal(0, c, x.shape[1:])))


def shot_noise(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Poisson(c x) / c, c = 500 250 100 75 50."""
    c = (500, 250, 100, 75, 50)[level - 1]
    return to_bytes(np.stack([random.poisson(image / 255 * c) / c for random, image in zip(randoms, x, strict=True)]))


def impulse_noise(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """A share of all values, .01 .02 .03 .05 .07, set to 0 or 255 with equal chance."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[level - 1]
    flipped, salted = draws_of(randoms, lambda random: random.uniform(size=(2, *x.shape[1:]))).swapaxes(0, 1)
    return np.where(flipped <= share, np.where(salted <= 0.5, np.uint8(255), np.uint8(0)), x)


def speckle_noise(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """x + x N(0, c), c = .06 .10 .12 .16 .20."""
    c = (0.06, 0.1, 0.12, 0.16, 0.2)[level - 1]
    return to_bytes(x / 255 * (1 + draws_of(randoms, lambda random: random.normal(0, c, x.shape[1:]))))
