"""Pictures of synthetic sets and of data sets."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fastdd.core import files
from fastdd.data import Dataset, SyntheticSet
from fastdd.data.pictures import grid

# Of a preview, and the least side of an image in it: 204 classes of ten images of 64 pixels, 16 of ten of 224.
_PIXELS, _SIDE = 1 << 23, 64


def preview(synthetic: SyntheticSet, path: str | os.PathLike, columns: int = 10) -> None:
    """Write a PNG with one class a row, at most ``columns`` images each, de-normalised and clamped to [0, 255].

    Small images are enlarged by a whole factor, without smoothing, to about 64 pixels. Behind an image that holds
    several (multi-formation) are those that networks see of it. Where the classes would take more than 8 million
    pixels, as many as do not are shown, evenly spaced; others are not read.
    """
    labels = synthetic.labels.numpy()
    each = 1 if synthetic.formation == 1 else 1 + synthetic.formation**2
    most = min(max(1, columns // each), int(np.bincount(labels).max()))
    a_class = most * each * math.prod(max(_SIDE, side) for side in synthetic.images.shape[2:])
    chosen = first_of_classes(synthetic, shown_classes(synthetic, max(1, _PIXELS // a_class)), most)
    shown = with_parts(taken(synthetic, np.concatenate(chosen)))
    ends = np.cumsum([len(rows) for rows in chosen])[:-1]
    write_grid([np.concatenate(row) for row in np.split(shown, ends)], most * each, path)


def taken(made: SyntheticSet, rows: np.ndarray) -> SyntheticSet:
    """The set of these images."""
    if np.array_equal(rows, np.arange(len(made.images))):
        return made
    rows = torch.from_numpy(rows)
    some = {name: getattr(made, name) for name in ("soft_labels", "groups")}
    some = {name: None if value is None else value[rows] for name, value in some.items()}
    return replace(made, images=made.images.detach()[rows], labels=made.labels[rows], **some)


def with_parts(synthetic: SyntheticSet) -> np.ndarray:
    """Every image as it is stored and, where it holds several, those that networks see: uint8 [M, 1 + f^2, C, H, W], or
    [M, 1, C, H, W]."""
    stored = synthetic.to_uint8()[:, None]
    if synthetic.formation == 1:
        return stored.numpy()
    image, part = synthetic.parts.unbind(1)
    of_images = (image * synthetic.formation**2 + part).argsort()
    seen = synthetic.decoded().to_uint8()[of_images].unflatten(0, (len(stored), -1))
    return torch.cat([stored, seen], 1).numpy()


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
    write_grid(rows, each * dataset.num_groups, path)


def preview_snapshots(snapshots: Sequence[tuple[int, Path]], path: str | os.PathLike) -> None:
    """Write a PNG of a run's course: a class a row, and in it its first image after the iterations of the snapshots.

    Of more than 20 classes, 20 are shown, evenly spaced.
    """
    sets = {iteration: SyntheticSet.load(file) for iteration, file in snapshots}
    columns = [first_images(made) for made in sets.values()]
    write_grid(list(np.stack(columns, 1)), len(columns), path, [f"{iteration:,}" for iteration in sets])


def first_images(made: SyntheticSet) -> np.ndarray:
    """uint8 [C, channels, H, W]: the first image of every class that is shown, as it is stored."""
    rows = np.concatenate(first_of_classes(made, shown_classes(made), 1))
    return taken(made, rows).to_uint8().numpy()


def first_of_classes(made: SyntheticSet, classes: Sequence[int], most: int) -> list[np.ndarray]:
    """Of each class the rows of its first images, so many or fewer."""
    labels = made.labels.numpy()
    return [np.flatnonzero(labels == label)[:most] for label in classes]


def shown_classes(made: SyntheticSet, most: int = 20) -> list[int]:
    """All classes, or so many of them, evenly spaced."""
    labels = np.unique(made.labels.numpy())
    return labels[np.unique(np.linspace(0, len(labels) - 1, min(len(labels), most)).astype(int))].tolist()


def write_grid(
    rows: list[np.ndarray],
    columns: int,
    path: str | os.PathLike,
    titles: Sequence[str] = (),
    names: Sequence[str] = (),
) -> None:
    """One PNG of uint8 [n, C, H, W] a row; ``titles`` of columns stand above, ``names`` of rows on the left."""
    drawn = grid(rows, columns, titles, names)
    files.write_atomic(path, lambda file: drawn.save(file, format="PNG", optimize=True))
