"""Where the object is in an image, for sets that were painted so that the pixels tell."""

import numpy as np


def brighter_half(images: np.ndarray) -> np.ndarray:
    """The object of images painted on black: pixels at least half as bright as the image's brightest.

    Brightness is the largest channel. C-MNIST (FG) has two levels; of shaded digits it leaves out the soft edge.

    Args:
        images: uint8 [N, C, H, W].

    Returns:
        bool [N, H, W].

    >>> brighter_half(np.array([[[[0, 90, 200]], [[0, 110, 40]]]], np.uint8)).tolist()
    [[[False, True, True]]]
    """
    bright = images.max(1)
    return 2 * bright.astype(np.int64) >= bright.max((1, 2), keepdims=True).clip(1).astype(np.int64)


def black(images: np.ndarray) -> np.ndarray:
    """The object of images with a black object on a coloured background (C-MNIST BG): bool [N, H, W]."""
    return ~images.any(1)
