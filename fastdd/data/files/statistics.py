"""Mean and standard deviation of pixels, from exact counts of their levels."""

import numpy as np


def level_statistics(counts: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, pixels scaled to [0, 1], from exact counts of the 256 levels.

    A constant channel gets the std 1/255, so that it can be normalised.

    Args:
        counts: int64 [C, 256].
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for count in counts:
        mean = float(count @ levels / count.sum())
        means.append(mean)
        stds.append(max(float(np.sqrt(count @ (levels - mean) ** 2 / count.sum())), 1 / 255))
    return tuple(means), tuple(stds)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """:func:`level_statistics` of uint8 images [N, C, H, W].

    >>> channel_statistics(np.array([0, 255], np.uint8).reshape(1, 1, 1, 2))
    ((0.5,), (0.5,))
    """
    channels = [np.array_split(images[:, channel], 64) for channel in range(images.shape[1])]
    return level_statistics(
        np.stack([sum(np.bincount(part.ravel(), minlength=256) for part in parts) for parts in channels])
    )
