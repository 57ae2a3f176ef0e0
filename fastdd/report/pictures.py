"""Pictures of synthetic sets."""

import os

import numpy as np

from fastdd import files
from fastdd.data import SyntheticSet

_GAP = 2
_TARGET_PIXELS = 64


def preview(synthetic: SyntheticSet, path: str | os.PathLike, columns: int = 10) -> None:
    """Write a PNG with one class a row, at most ``columns`` images each, de-normalised and clamped to [0, 255].

    Small images are enlarged by a whole factor, without smoothing, to about 64 pixels.
    """
    from PIL import Image

    images, labels = synthetic.to_uint8().numpy(), synthetic.labels.numpy()
    scale = max(1, _TARGET_PIXELS // images.shape[2])
    images = images.repeat(scale, axis=2).repeat(scale, axis=3)
    _, channels, height, width = images.shape
    classes = np.unique(labels)
    columns = min(columns, int(np.bincount(labels).max()))
    grid = np.full(
        (len(classes) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels), 255, dtype=np.uint8
    )
    for row, label in enumerate(classes):
        for column, image in enumerate(images[labels == label][:columns]):
            top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
            grid[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    picture = Image.fromarray(grid.squeeze(2) if channels == 1 else grid)
    files.write_atomic(path, lambda file: picture.save(file, format="PNG", optimize=True))
