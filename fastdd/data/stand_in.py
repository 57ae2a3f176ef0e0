"""Images in the place of real ones, for training that begins with them (From Fake to Real: Qraitem et al., ECCV 2024).

The paper generates them by a diffusion model, as many of every class and group. :func:`read_fakes` reads such images;
:func:`stand_in` makes, where there is no generator, something that looks unlike real images and has no bias: held-out
images that are pixelated, blurred and made noisy, as the paper's public code can do to its generated ones.
"""

import dataclasses
import os
import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from fastdd.core import rng
from fastdd.data.class_names import places
from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Rows, decoded
from fastdd.data.files.tree import Tree, lines

# In this order, as in the public code.
DEGRADATIONS = ("pixelate", "defocus_blur", "gaussian_noise")
# The corruptions' draws are those of a split and a row; a data set's are 0 and 1.
_SPLIT = 2
_ALL = -1


def stand_in(
    dataset: Dataset, per_cell: int | None, severity: int, seed: int = 0, *, source: Split | None = None
) -> Split:
    """Degraded images of every (class, group), of the data set's validation images.

    A network that is trained on them has seen these images: choose settings and epochs by others.

    Args:
        dataset: whose images; training images stay in it, as they are.
        per_cell: images of every class and group that training or the source has, drawn without replacement; None: all
            that the source has.
        severity: 1..5, the level of each of :data:`DEGRADATIONS`.
        seed: of which images, and of the noise.
        source: images to take instead of the validation images, such as :func:`take_out` gives.

    Returns:
        By class, group and row of the source; uint8, of the source's shape.

    Raises:
        ValueError: no validation images and no source, too few of a class and group, naming it, or another severity.

    Deterministic: an image's pixels follow from its row in the source, ``severity`` and ``seed``.

    >>> from fastdd.data import load
    >>> digits = load("c-digits", bias_ratio=0.5, validation=0.2)
    >>> int(stand_in(digits, 1, 3).counts(10, 10).sum())
    100
    """
    source = _validation_of(dataset) if source is None else source
    shape = dataset.num_classes, dataset.num_groups
    cells = (dataset.train.counts(*shape) + source.counts(*shape)) > 0
    return _degraded(source, _rows_of_cells(dataset, source, _each(cells, per_cell), seed, left=0), severity, seed)


def stand_in_of_validation(dataset: Dataset, wanted: np.ndarray, severity: int, seed: int = 0) -> tuple[Dataset, Split]:
    """Degraded validation images (:func:`stand_in`), and the data set without these among its validation images.

    Args:
        dataset: whose images; training images stay in it, as they are.
        wanted: int64 [C, G], images of every class and group, drawn without replacement.
        severity: 1..5, the level of each of :data:`DEGRADATIONS`.
        seed: of which images, and of the noise.

    Raises:
        ValueError: no validation images, none left of a class and group, naming it, or another severity.

    >>> from fastdd.data import load
    >>> digits = load("c-digits", bias_ratio=0.5, validation=0.4)
    >>> rest, fakes = stand_in_of_validation(digits, np.ones((10, 10), np.int64), 3)
    >>> len(digits.validation), len(rest.validation), len(fakes)
    (525, 425, 100)
    """
    source = _validation_of(dataset)
    rows = _rows_of_cells(dataset, source, wanted, seed, left=1)
    rest = source.take(np.delete(np.arange(len(source)), rows))
    about = {"of": "validation images", "images": len(rows), "severity": severity, "seed": seed}
    provenance = dataset.provenance | {"stand_in": about | {"degraded_by": list(DEGRADATIONS)}}
    return dataclasses.replace(dataset, validation=rest, provenance=provenance), _degraded(source, rows, severity, seed)


def take_out(dataset: Dataset, per_cell: int, seed: int = 0) -> tuple[Dataset, Split]:
    """The data set without some training images of every (class, group), and these images.

    Args:
        dataset: must have at least one image more of every class and group that it trains on.
        per_cell: images of each, drawn without replacement.
        seed: of the draw.

    Raises:
        ValueError: too few of a class and group, naming it.

    >>> from fastdd.data import load
    >>> digits = load("c-digits", bias_ratio=0.5)
    >>> rest, held = take_out(digits, 2)
    >>> len(digits.train), len(rest.train), len(held)
    (1297, 1097, 200)
    """
    train, shape = dataset.train, (dataset.num_classes, dataset.num_groups)
    rows = _rows_of_cells(dataset, train, _each(train.counts(*shape) > 0, per_cell), seed, left=1)
    rest = train.take(np.delete(np.arange(len(train)), rows))
    provenance = dataset.provenance | {"taken_out": {"per_cell": per_cell, "seed": seed}}
    return dataclasses.replace(dataset, train=rest, provenance=provenance), train.take(rows)


def _validation_of(dataset: Dataset) -> Split:
    if dataset.validation is None:
        raise ValueError(
            f"{dataset.name} has no validation images to make stand-ins of: load it with validation=0.1 "
            "(--data-option), or take images out of training (fastdd.data.stand_in.take_out)"
        )
    return dataset.validation


def _degraded(source: Split, rows: np.ndarray, severity: int, seed: int) -> Split:
    # SciPy and Pillow are for those who corrupt; importing fastdd needs neither.
    from fastdd.data.sets import corruptions

    if severity not in range(1, corruptions.LEVELS + 1):
        raise ValueError(f"severity must be 1..{corruptions.LEVELS}, not {severity!r}")
    images = source.images[rows]
    for name in DEGRADATIONS:
        images = corruptions.corrupt(images, name, severity, rows, seed, _SPLIT)
    return Split(images, source.labels[rows], source.groups[rows])


def _each(cells: np.ndarray, per_cell: int | None) -> np.ndarray:
    """int64 [C, G], how many of each of the cells; _ALL for all that there are."""
    if per_cell is not None and per_cell < 1:
        raise ValueError(f"per_cell must be at least 1, not {per_cell}")
    return np.where(cells, _ALL if per_cell is None else per_cell, 0)


def _rows_of_cells(dataset: Dataset, source: Split, wanted: np.ndarray, seed: int, left: int) -> np.ndarray:
    """Rows of the source, cell by cell and in each ascending: as many as wanted [C, G], or all (_ALL)."""
    chosen = [np.zeros(0, np.int64)]
    for label, group in np.argwhere(wanted).tolist():
        rows = np.flatnonzero((source.labels == label) & (source.groups == group))
        count = None if wanted[label, group] == _ALL else int(wanted[label, group])
        if len(rows) < (count or 1) + left:
            what = f"{dataset.class_names[label]!r}, group {dataset.group_names[group]!r}"
            raise ValueError(
                f"there are {len(rows):,} images of class {what} to take {count or 'any'} of"
                f"{', and one has to be left' if left else ''}: ask for fewer, or hold out more"
            )
        order = rng.permutation(rng.key(seed, "stand-in", label, group), len(rows)).numpy()
        chosen.append(np.sort(rows[order[:count]]))
    return np.concatenate(chosen)


def read_fakes(
    folder: str | os.PathLike,
    class_names: Sequence[str],
    group_names: Sequence[str],
    size: int,
    channels: int = 3,
    *,
    cells: Iterable[tuple[int, int]] | None = None,
    skip_corrupt: bool = False,
) -> Split:
    """Generated images in folders ``<class>/<group>``, for a data set's classes and groups.

    Folders are called by the data set's names, as far as a folder can (:func:`fastdd.data.class_names.places`), or
    numbered as its classes and groups are. Images are read as the data set ``folder`` reads them: PNG, JPEG, ... as a
    viewer shows them, the shorter side resized to ``size``, the centre cut out. What is no image is left out, and told
    in a warning.

    Args:
        folder: the folder, or a zip or uncompressed tar archive of one.
        class_names, group_names: the data set's.
        size: height and width in pixels.
        channels: 3, or 1 for gray (ITU-R 601-2 luma).
        cells: (class, group) that there have to be images of; by default all.
        skip_corrupt: leave out images that can't be decoded; how many, and the first, is told in a warning.

    Returns:
        By class and group, in the order of the names; uint8 [N, channels, size, size].

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a folder that is called as no class or group is; a class and group without images, naming it.
        RuntimeError: an image that can't be decoded, naming it, unless they are skipped.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    if channels not in (1, 3):
        raise ValueError(f"images have 3 channels, or 1 for gray, not {channels}")
    tree = Tree(folder)
    rows, remarks = _fake_rows(tree, class_names, group_names)
    wanted = np.zeros((len(class_names), len(group_names)), bool)
    for cell in np.ndindex(wanted.shape) if cells is None else cells:
        wanted[tuple(cell)] = True
    _check_cells(tree, rows, wanted, class_names, group_names)
    rows = dataclasses.replace(rows, gray=np.full(len(rows), channels == 1))
    images, failed = [], []
    for part in decoded(tree, rows, Recipe(size), skip_corrupt=skip_corrupt):
        images.append(part.done.images[:, :channels])
        failed += part.failed
    if failed:
        rows = rows.take(np.delete(np.arange(len(rows)), [row for row, _ in failed]))
        _check_cells(tree, rows, wanted, class_names, group_names)
        remarks.append(f"corrupt images left out: {len(failed)} ({failed[0][1]})")
    for remark in remarks:
        warnings.warn(f"{folder}: {remark}", RuntimeWarning, stacklevel=2)
    return Split(np.concatenate(images), rows.labels, rows.groups)


def _fake_rows(tree: Tree, class_names: Sequence[str], group_names: Sequence[str]) -> tuple[Rows, list[str]]:
    """The images of all folders, in the order of classes and groups, and a line for each reason of what is left out."""
    found, above = [], [""]
    for label, of_class in _numbered(tree, "", class_names, "class"):
        above.append(of_class)
        found += [(label, group, folder) for group, folder in _numbered(tree, of_class, group_names, "group")]
    found.sort()
    images = [tree.images(folder) for *_, folder in found]
    counts = [len(names) for names in images]
    labels, groups = (np.repeat(np.array([cell[axis] for cell in found], np.int64), counts) for axis in (0, 1))
    left_out = tree.left_out(folder for *_, folder in found)
    if beside := [name for folder in above for name in tree.images(folder)]:
        left_out["images beside the groups' folders"] = beside
    return Rows([name for names in images for name in names], labels, groups), lines(left_out)


def _numbered(tree: Tree, below: str, names: Sequence[str], kind: str) -> list[tuple[int, str]]:
    """The folders in a folder, with the number of the class or group that each is of; hidden ones are none."""
    folders = [name for name in tree.folders(below) if not name.startswith(".")]
    if not folders:
        return []
    numbers = places(folders, names, kind)
    if numbers is None:
        raise ValueError(f"{tree.shown(below)}: folders must be numbered as the data set's, 0 to {len(names) - 1}")
    return [(number, f"{below}/{name}" if below else name) for number, name in zip(numbers, folders, strict=True)]


def _check_cells(
    tree: Tree, rows: Rows, wanted: np.ndarray, class_names: Sequence[str], group_names: Sequence[str]
) -> None:
    found = np.zeros_like(wanted)
    found[rows.labels, rows.groups] = True
    missing = np.argwhere(wanted & ~found).tolist()
    if missing or not len(rows):
        label, group = missing[0] if missing else (0, 0)
        more = f", nor of {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f"{tree.path} has no images of class {class_names[label]!r}, group {group_names[group]!r}{more}: they are "
            "looked for in folders <class>/<group>"
        )
