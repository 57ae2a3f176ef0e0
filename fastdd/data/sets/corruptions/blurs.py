"""Blurs: Gaussian, defocus, glass, motion and zoom."""

import math

import numpy as np
from scipy import ndimage

from fastdd.data.sets.corruptions.base import SIZE, Randoms, draws_of, gaussian, magnification, to_bytes


def gaussian_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Gaussian blur, sigma .4 .6 .7 .8 1 pixels."""
    return to_bytes(gaussian(x / 255, (0.4, 0.6, 0.7, 0.8, 1)[level - 1]))


def defocus_kernel(radius: float, sigma: float) -> np.ndarray:
    """A disk of pixels within ``radius``, smoothed by a 3x3 Gaussian of ``sigma``: float64, [5, 5] or larger, sum 1."""
    reach = max(2, int(radius) + 1)
    offsets = np.arange(-reach, reach + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2) / 1.0
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    return ndimage.convolve(disk / disk.sum(), np.outer(taps, taps), mode="constant")


def defocus_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """:func:`defocus_kernel` with (radius, sigma) = (.3, .4) (.4, .5) (.5, .6) (1, .2) (1.5, .1), any size of images.

    Of images larger than 32x32, the radius grows with the shorter side: 10.5 pixels of 224 at level 5, where the
    publishers' script for ImageNet has 10.
    """
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[level - 1]
    kernel = defocus_kernel(radius * max(1, min(x.shape[2:]) / SIZE), sigma)
    return to_bytes(ndimage.correlate(x / 255, kernel[None, None], mode="mirror"))


def glass_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Blur, move every pixel of rows and columns 2 to 31 by a step of 0 or -1 along each axis, blur.

    Published are swaps, with sigma .05 .25 .4 .25 .4 and 1 1 1 2 2 rounds; but a swap of two pixels of a numpy array
    writes the first over itself, which leaves a copy of the upper left neighbour. Going from the last pixel to the
    first, a round never reads what it wrote.
    """
    sigma, rounds = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[level - 1]
    moved = (gaussian(x / 255, sigma) * 255).astype(np.uint8)
    inner = np.arange(2, SIZE)
    steps = draws_of(randoms, lambda random: random.randint(-1, 1, (rounds, 2, len(inner), len(inner))))
    image = np.arange(len(x))[:, None, None]
    for down, right in steps.transpose(1, 2, 0, 3, 4):
        # Indices around the channel slice: the result is [n, 30, 30, 3].
        taken = moved[image, :, inner[:, None] + down, inner + right]
        moved[:, :, 2:, 2:] = taken.transpose(0, 3, 1, 2)
    return to_bytes(gaussian(moved / 255, sigma))


def motion_kernel(radius: int, sigma: float) -> np.ndarray:
    """Weights along the motion, ImageMagick's: half a Gaussian, taps 0 to 2 ceil(radius), sum 1."""
    taps = np.exp(-(np.arange(2 * math.ceil(radius) + 1) ** 2) / (2 * sigma**2))
    return taps / taps.sum()


def motion(x: np.ndarray, radius: int, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """ImageMagick's MotionBlurImage: tap i lies at offset ceil(i (cos a, sin a) - 1/2); edge pixels repeat; rounded.

    Args:
        x: uint8 [N, C, H, W].
        degrees: angle of each image, float [N]; 0 is to the right, 90 down.
    """
    angle = np.deg2rad(degrees)[:, None, None]
    image = np.arange(len(x))[:, None, None]
    rows, columns = np.arange(x.shape[2])[:, None], np.arange(x.shape[3])
    by_pixel = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).astype(np.float32)
    out = np.zeros_like(by_pixel)
    for i, weight in enumerate(motion_kernel(radius, sigma).astype(np.float32)):
        down = np.clip(rows + np.ceil(i * np.sin(angle) - 0.5).astype(int), 0, x.shape[2] - 1)
        right = np.clip(columns + np.ceil(i * np.cos(angle) - 0.5).astype(int), 0, x.shape[3] - 1)
        out += weight * by_pixel[image, down, right]
    return np.rint(out).astype(np.uint8).transpose(0, 3, 1, 2)


def motion_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """:func:`motion` at -45 to 45 degrees, (radius, sigma) = (6, 1) (6, 1.5) (6, 2) (8, 2) (9, 2.5)."""
    degrees = draws_of(randoms, lambda random: random.uniform(-45, 45))
    return motion(x, *((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[level - 1], degrees)


def zoom_blur(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """The mean of the image and its zooms by 1, 1.01, ..., up to 1.06 1.11 1.15 1.20 1.25.

    The published ranges are meant to end before 1.06, 1.11, ...; by rounding, the first two do not.
    """
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[level - 1], 0.01)
    x = x / 255
    total = x.copy()
    for factor in factors:
        matrix = magnification(float(factor))
        total += matrix @ x @ matrix.T
    return to_bytes(total / (len(factors) + 1))
