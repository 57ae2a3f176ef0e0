"""The corruptions of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019), at their five levels, for 3x32x32 images; three
of them for images of any size.

Formulas and constants are those of the published CIFAR-10-C script (github.com/hendrycks/robustness,
``make_cifar_c.py``), which LfF and Biased-DD use unchanged for Corrupted CIFAR-10 and CCIFAR10-DD. Results can't be
bit-equal to the published files: those were drawn without a seed, or from one stream over all images. Here every image
has its own ``numpy.random.RandomState((seed, split, row))``, so that an image's pixels depend neither on the order nor
on which images are built together. Besides that:

* ``motion_blur`` and ``snow`` need no ImageMagick: its kernel is applied as such (``blurs.motion_kernel``);
* ``elastic`` samples at exact coordinates, where OpenCV rounds them to 1/32 pixel;
* ``frost`` has the published photographs only if they are given (:func:`frost_textures`), else drawn ones;
* ``jpeg`` depends on the JPEG library that Pillow was built with.

``spatter`` of levels 1 to 3 (water) needs OpenCV, for its edge detector: ``pip install fastdd[corruptions]``.
"""

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fastdd.data.files.decode import cores
from fastdd.data.sets.corruptions.base import LEVELS, SIZE
from fastdd.data.sets.corruptions.blurs import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from fastdd.data.sets.corruptions.colour import brightness, contrast, saturate
from fastdd.data.sets.corruptions.digital import elastic, jpeg, original, pixelate
from fastdd.data.sets.corruptions.ice import drawn_frost, frost_textures
from fastdd.data.sets.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from fastdd.data.sets.corruptions.weather import fog, frost, opencv, snow, spatter

__all__ = ["LEVELS", "SIZE", "TYPES", "corrupt", "drawn_frost", "frost_textures"]

# So many, of 32x32, that an array of a chunk stays in a core's cache.
_CHUNK = 128
# LfF's types: the corruption of class k is the k-th of its type.
_OF_TYPE: tuple[tuple[Callable[..., np.ndarray], ...], ...] = (
    (snow, frost, fog, brightness, contrast, spatter, elastic, jpeg, pixelate, saturate),
    (
        *(gaussian_noise, shot_noise, impulse_noise, speckle_noise, gaussian_blur),
        *(defocus_blur, glass_blur, motion_blur, zoom_blur, original),
    ),
)
# Their names are LfF's, lower case.
TYPES = tuple(tuple(function.__name__ for function in functions) for functions in _OF_TYPE)
# Those that images of any size and number of channels can have.
_ANY_SIZE = {"gaussian_noise", "defocus_blur", "pixelate"}
_FUNCTIONS = {function.__name__: function for functions in _OF_TYPE for function in functions}


def corrupt(
    images: np.ndarray,
    name: str,
    level: int,
    rows: np.ndarray,
    seed: int = 0,
    split: int = 0,
    textures: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Images under one corruption.

    Args:
        images: uint8 [N, 3, 32, 32]; for gaussian_noise, defocus_blur and pixelate also [N, C, H, W].
        name: of :data:`TYPES`.
        level: CIFAR-10-C's severity, 1..5.
        rows: int [N]: number of each image in its split; with ``seed`` and ``split`` it decides the image's draws.
        seed, split: see ``rows``; 0..2**32 - 1.
        textures: of ``frost``, :func:`frost_textures`; drawn ones by default.

    Returns:
        uint8, of the same shape. An image's pixels depend on its own row only.

    Raises:
        ValueError: an unknown name, a level outside 1..5, images of another shape.
        RuntimeError: spatter of levels 1 to 3 without OpenCV.

    Cost: 0.1 to 1 ms an image on one core, by corruption; chunks go over all cores that the process may use.

    >>> gray = np.full((1, 3, 32, 32), 100, np.uint8)
    >>> np.unique(corrupt(gray, "brightness", 5, np.arange(1)))
    array([176], dtype=uint8)
    """
    if name not in _FUNCTIONS:
        raise ValueError(f"unknown corruption {name!r}: known are {', '.join(_FUNCTIONS)}")
    if level not in range(1, LEVELS + 1):
        raise ValueError(f"level must be 1..{LEVELS}, not {level}")
    if images.ndim != 4 or (name not in _ANY_SIZE and images.shape[1:] != (3, SIZE, SIZE)):
        raise ValueError(f"corruptions need images of the shape [N, 3, {SIZE}, {SIZE}], not {list(images.shape)}")
    function = _FUNCTIONS[name]
    if name == "frost":
        function = functools.partial(frost, textures=frost_textures() if textures is None else textures)
    if name == "spatter" and level <= 3:
        opencv()

    count = max(1, _CHUNK * SIZE**2 // math.prod(images.shape[2:]))

    def chunk(start: int) -> np.ndarray:
        part = slice(start, start + count)
        return function(images[part], level, [np.random.RandomState((seed, split, row)) for row in rows[part]])

    out = np.empty_like(images)
    starts = range(0, len(images), count)
    with ThreadPoolExecutor(cores()) as pool:
        for start, built in zip(starts, pool.map(chunk, starts), strict=True):
            out[start : start + count] = built
    return out
