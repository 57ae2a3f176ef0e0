"""Elastic displacement, JPEG and coarse pixels; and the image as it is."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from fastdd.data.sets.corruptions.base import SIZE, Randoms, draws_of, gaussian, to_bytes


def original(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """The image itself: LfF's tenth "corruption" of type 1."""
    return x


def _sample(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, fold: Callable[[np.ndarray], np.ndarray]):
    """Bilinear samples of [N, 3, 32, 32] at [N, 32, 32] positions; ``fold`` maps indices beyond the edges inside."""
    by_pixel = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    image = np.arange(len(x))[:, None, None]
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    out = 0.0
    for row_step, row_weight in ((0, 1 - down), (1, down)):
        for column_step, column_weight in ((0, 1 - right), (1, right)):
            at = fold(top.astype(int) + row_step), fold(left.astype(int) + column_step)
            out = out + row_weight * column_weight * by_pixel[(image, *at)]
    return out.transpose(0, 3, 1, 2)


def _fold_pixels(index: np.ndarray) -> np.ndarray:
    """... 2 1 | 0 1 ... 31 | 30 29 ...: OpenCV's BORDER_REFLECT_101."""
    index = np.abs(index) % (2 * SIZE - 2)
    return np.minimum(index, 2 * SIZE - 2 - index)


def _fold_edges(index: np.ndarray) -> np.ndarray:
    """... 1 0 | 0 1 ... 31 | 31 30 ...: SciPy's "reflect"."""
    index = index % (2 * SIZE)
    return np.minimum(index, 2 * SIZE - 1 - index)


def elastic(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """A random affine map, then displacements a blur(U(-1, 1)) of every pixel.

    With p the points (26, 26), (26, 6), (6, 6): the map takes p to p + U(-c, c). (a, sigma of the blur, c), in pixels,
    are 32 times (0, 0, .08) (.05, .2, .07) (.08, .06, .06) (.1, .04, .05) (.1, .03, .03).
    """
    a, sigma, c = (
        SIZE * value
        for value in ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))[
            level - 1
        ]
    )
    points = np.array([[26, 26], [26, 6], [6, 6]])
    moved = points + draws_of(randoms, lambda random: random.uniform(-c, c, (3, 2)))
    # A pixel of the result shows the point that the map brings there: [x, y, 1] of the result to (x, y) of the image.
    back = np.linalg.solve(np.concatenate([moved, np.ones((len(x), 3, 1))], 2), np.broadcast_to(points, moved.shape))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    place = np.stack([columns, rows, np.ones_like(rows)], -1) @ back[:, None]
    x = _sample(x / 255, place[..., 1], place[..., 0], _fold_pixels)
    right, down = draws_of(randoms, lambda random: random.uniform(-1, 1, (2, SIZE, SIZE))).swapaxes(0, 1)
    right, down = (a * gaussian(way, sigma, "reflect", 3) for way in (right, down))
    return to_bytes(_sample(x, rows + down, columns + right, _fold_edges))


def jpeg(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """JPEG, quality 80 65 58 50 40, Pillow's other settings."""
    return np.stack([_jpeg(image, (80, 65, 58, 50, 40)[level - 1]) for image in x])


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    packed = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(packed, "JPEG", quality=quality)
    return np.asarray(Image.open(packed)).transpose(2, 0, 1)


def pixelate(x: np.ndarray, level: int, randoms: Randoms) -> np.ndarray:
    """Resized to .95 .9 .85 .75 .65 of its sides (30 28 27 24 20 of 32) and back, by Pillow's box filter; any size."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[level - 1]
    height, width = x.shape[2:]
    small = max(1, int(width * share)), max(1, int(height * share))

    def there_and_back(plane: np.ndarray) -> np.ndarray:
        shrunk = Image.fromarray(plane).resize(small, Image.Resampling.BOX)
        return np.asarray(shrunk.resize((width, height), Image.Resampling.BOX))

    if x.shape[1] == 3:
        return np.stack([there_and_back(image.transpose(1, 2, 0)).transpose(2, 0, 1) for image in x])
    return np.stack([[there_and_back(plane) for plane in image] for image in x])
