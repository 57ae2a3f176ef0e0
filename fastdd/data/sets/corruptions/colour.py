"""Brightness, saturation and contrast."""

import numpy as np

from fastdd.data.sets.corruptions.base import Randoms, to_bytes


def _hsv(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue, saturation and value, 0..1 (Smith 1978), of [N, 3, H, W] in 0..1."""
    red, green, blue = x.swapaxes(0, 1)
    value = x.max(1)
    chroma = value - x.min(1)
    safe = np.where(chroma == 0, 1, chroma)
    hue = np.where(
        value == blue,
        4 + (red - green) / safe,
        np.where(value == green, 2 + (blue - red) / safe, (green - blue) / safe),
    )
    hue = np.where(chroma == 0, 0, (hue / 6) % 1)
    return hue, chroma / np.where(value == 0, 1, value), value


def _rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The inverse of :func:`_hsv`: channel n is v - v s max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6, n = 5 3 1."""
    k = (np.array([5, 3, 1])[:, None, None] + 6 * hue[:, None]) % 6
    return value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def brightness(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Value (of HSV) + c, at most 1: c = .05 .1 .15 .2 .3."""
    hue, saturation, value = _hsv(x / 255)
    return to_bytes(_rgb(hue, saturation, np.clip(value + (0.05, 0.1, 0.15, 0.2, 0.3)[level - 1], 0, 1)))


def saturate(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Saturation (of HSV) a s + b, within 0..1: (a, b) = (.3, 0) (.1, 0) (1.5, 0) (2, .1) (2.5, .2)."""
    a, b = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[level - 1]
    hue, saturation, value = _hsv(x / 255)
    return to_bytes(_rgb(hue, np.clip(a * saturation + b, 0, 1), value))


def contrast(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """m + c (x - m), m the channel's mean: c = .75 .5 .4 .3 .15."""
    x = x / 255
    means = x.mean((2, 3), keepdims=True)
    return to_bytes((x - means) * (0.75, 0.5, 0.4, 0.3, 0.15)[level - 1] + means)
