"""Pictures of synthetic sets and of data sets."""

import os

import numpy as np

from fastdd.core import files
from fastdd.data import Dataset, SyntheticSet

_GAP = 2
_TARGET_PIXELS = 64


def preview(synthetic: SyntheticSet, path: str | os.PathLike, columns: int = 10) -> None:
    """Write a PNG with one class a row, at most ``columns`` images each, de-normalised and clamped to [0, 255].

    Small images are enlarged by a whole factor, without smoothing, to about 64 pixels.
    """
    images, labels = synthetic.to_uint8().numpy(), synthetic.labels.numpy()
    columns = min(columns, int(np.bincount(labels).max()))
    _write_grid([images[labels == label][:columns] for label in np.unique(labels)], columns, path)


def preview_dataset(dataset: Dataset, path: str | os.PathLike, each: int = 2) -> None:
    """Write a PNG of training images: a class a row, and in it the first ``each`` of every group, group by group.

    A cell that has fewer is filled up with gray. Of more than 20 classes, 20 are shown, evenly spaced.
    """
    train, blank = dataset.train, np.full((each, *dataset.train.images.shape[1:]), 200, np.uint8)
    classes = np.unique(np.linspace(0, dataset.num_classes - 1, min(dataset.num_classes, 20)).astype(int))
    rows = []
    for label in classes:
        cells = []
        for group in range(dataset.num_groups):
            chosen = np.flatnonzero((train.labels == label) & (train.groups == group))[:each]
            cells += [train.images[chosen], blank[len(chosen) :]]
        rows.append(np.concatenate(cells))
    _write_grid(rows, each * dataset.num_groups, path)


def _write_grid(rows: list[np.ndarray], columns: int, path: str | os.PathLike) -> None:
    """One PNG of uint8 [n, C, H, W] a row."""
    from PIL import Image

    scale = max(1, _TARGET_PIXELS // rows[0].shape[2])
    channels, height, width = rows[0].shape[1], rows[0].shape[2] * scale, rows[0].shape[3] * scale
    grid = np.full((len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels), 255, dtype=np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images.repeat(scale, axis=2).repeat(scale, axis=3)):
            top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
            grid[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    picture = Image.fromarray(grid.squeeze(2) if channels == 1 else grid)
    files.write_atomic(path, lambda file: picture.save(file, format="PNG", optimize=True))
