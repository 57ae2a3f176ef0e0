"""Where the object is in an image, for sets that were painted so that the pixels tell.

An image whose pixels do not tell has no pixel of an object.
"""

import numpy as np

from fastdd.data.sets.backgrounds import OPAQUE, PADDING
from fastdd.data.sets.builders import graded_background

# Fashion-MNIST has specks of 1 to 5 around its objects.
_SPECKS = 5
# Of a colour photograph's frame hardly a pixel has three equal channels; of most gray ones, all have.
_MOST_GRAY = 0.05


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


def above_specks(images: np.ndarray) -> np.ndarray:
    """The object of images in shades of a colour on black (C-FMNIST FG): gray levels above 5, bool [N, H, W].

    All ten colours have a channel of 255, in which the gray level is kept.
    """
    return images.max(1) > _SPECKS


def on_graded_background(images: np.ndarray) -> np.ndarray:
    """The object of images of C-FMNIST (BG): gray levels above 5, bool [N, H, W].

    The top left pixel is padding: it has the background's colour, whose table gives the levels back. On white the
    published overflow gives levels v and v + 128 the same pixels: there they do not tell.
    """
    found = np.zeros((len(images), *images.shape[2:]), bool)
    backgrounds = _codes(images[:, :, 0, 0].T)
    for table in graded_background():
        levels = _codes(table)
        objects = levels[_SPECKS + 1 :]
        if not np.isin(levels[: _SPECKS + 1], objects).any():
            rows = np.flatnonzero(backgrounds == levels[0])
            found[rows] = np.isin(_codes(images[rows].swapaxes(0, 1)), objects)
    return found


def _codes(channels: np.ndarray) -> np.ndarray:
    """uint8 [3, ...] as one number a pixel."""
    red, green, blue = channels.astype(np.int64)
    return red << 16 | green << 8 | blue


def opaque_gray(images: np.ndarray) -> np.ndarray:
    """The object of images over photographs (BG-FMNIST), where it hides the photograph: bool [N, H, W].

    Pixels of three equal channels of at least 48. None of the object's is missed, and few of a colour photograph's are
    taken for one: over the photographs of Tiny-ImageNet intersection over union is .99 in the mean. Where more than a
    twentieth of the two-pixel frame, which is all photograph, has equal channels, the photograph is gray itself and
    pixels do not tell: of a tenth of these.
    """
    gray = (images == images[:, :1]).all(1)
    frame = np.ones(gray.shape[1:], bool)
    frame[PADDING:-PADDING, PADDING:-PADDING] = False
    of_colour = gray[:, frame].mean(1) <= _MOST_GRAY
    return gray & (images[:, 0] >= OPAQUE) & of_colour[:, None, None]
