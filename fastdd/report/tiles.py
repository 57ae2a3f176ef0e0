"""Images of a page as tiles: synthetic ones, marked by their groups where an audit says them, and real ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdd.core import rng
from fastdd.data import Dataset, SyntheticSet
from fastdd.data.pictures import data_uri, picture
from fastdd.evaluation.audit import Audit
from fastdd.report.palette import group_colours
from fastdd.report.pictures import first_images, first_of_classes, shown_classes, taken, with_parts

# What a reader takes in, and a file that a phone opens at once.
MOST_CLASSES, _REAL_IMAGES = 20, 10


@dataclass(frozen=True)
class Tile:
    """An image of the page: its PNG as a data URI, what it shows, and the colour of its group."""

    src: str
    alt: str
    mark: str = ""


def png_uri(image: np.ndarray) -> str:
    """uint8 [C, H, W] as a data URI."""
    return data_uri(picture(image))


def synthetic_tiles(made: SyntheticSet, audit: Audit | None, images: int) -> list[tuple[int, str, list[Tile]]]:
    """(class, its name, images) of the classes that are shown; with an audit, marked by their groups."""
    names = made.metadata["class_names"]
    most = max(1, images // (1 if made.formation == 1 else 1 + made.formation**2))
    shown = np.unique(made.labels.numpy())[:MOST_CLASSES].tolist()
    chosen = first_of_classes(made, shown, most)
    pixels = iter(with_parts(taken(made, np.concatenate(chosen))))
    classes = []
    for label, rows in zip(shown, chosen, strict=True):
        tiles = []
        for n, row in enumerate(rows):
            for part, image in enumerate(next(pixels)):
                seen = row * made.formation**2 + part - 1 if made.formation > 1 else row
                group, mark = ("", "") if made.formation > 1 and not part else _group_of(audit, seen)
                of = f"synthetic {names[label]} {n + 1}{f', part {part}' if part else ''}{group}"
                tiles.append(Tile(png_uri(image), of, mark))
        classes.append((int(label), names[label], tiles))
    return classes


def _group_of(audit: Audit | None, number: int) -> tuple[str, str]:
    """What the probe says of an image that networks see, and its group's colour; nothing where it says nothing."""
    made = None if audit is None else audit.of_set
    if made is None or made.groups is None:
        return "", ""
    group = made.groups[number]
    name, sure = audit.data.group_names[group], made.certainty[number]
    return f", group {name} ({100 * sure:.0f} %)", group_colours(audit.data.group_names)[group]


def group_marks(audit: Audit | None) -> list[tuple[str, str]]:
    """(colour, name) of the groups that images are marked by."""
    made = None if audit is None else audit.of_set
    used = sorted(set(made.groups)) if made is not None and made.groups is not None else []
    colours = group_colours(audit.data.group_names) if used else []
    return [(colours[group], audit.data.group_names[group]) for group in used]


def marks_of_real(dataset: Dataset | None) -> list[tuple[str, str]]:
    """(colour, name) of a data set's groups, by which real images are marked; nothing where there is only one."""
    if dataset is None or dataset.num_groups < 2:
        return []
    return list(zip(group_colours(dataset.group_names), dataset.group_names, strict=True))


@dataclass(frozen=True)
class ClassRow:
    """A class of several sets, side by side.

    Attributes:
        name: of the class.
        sets: its images of every set.
        real: its real ones.
    """

    name: str
    sets: list[list[Tile]]
    real: list[Tile]


def side_by_side(
    sets: Sequence[list[tuple[int, str, list[Tile]]]], real: dict[int, list[Tile]], *, by_number: bool
) -> list[ClassRow]:
    """The classes of sets, as :func:`synthetic_tiles` gives them, in the order in which they come first.

    ``by_number``: sets number their classes alike, as the data set does; otherwise a class goes by its name.
    """
    rows: dict[Any, ClassRow] = {}
    for column, classes in enumerate(sets):
        seen: dict[str, int] = {}
        for label, name, tiles in classes:
            seen[name] = seen.get(name, 0) + 1
            key = label if by_number else (name, seen[name])
            row = rows.setdefault(key, ClassRow(name, [[] for _ in sets], real.get(label, []) if by_number else []))
            row.sets[column].extend(tiles)
    return [rows[key] for key in sorted(rows)] if by_number else list(rows.values())


def real_tiles(dataset: Dataset, seed: int) -> dict[int, list[Tile]]:
    """Random training images of the classes that are shown."""
    train, tiles, marks = dataset.train, {}, [colour for colour, _ in marks_of_real(dataset)]
    for label, name in list(enumerate(dataset.class_names))[:MOST_CLASSES]:
        rows = _some(np.flatnonzero(train.labels == label), _REAL_IMAGES, rng.key(seed, "report-real", label))
        tiles[label] = [
            Tile(
                png_uri(train.images[row]),
                f"real {name}, {dataset.group_names[train.groups[row]]}",
                marks[train.groups[row]] if marks else "",
            )
            for row in rows
        ]
    return tiles


def _some(rows: np.ndarray, count: int, key: int) -> np.ndarray:
    return rows[rng.permutation(key, len(rows)).numpy()[:count]]


def snapshot_tiles(snapshots: Sequence[tuple[int, Path]]) -> dict[str, Any]:
    """Of sets kept on the way: iterations, and for every class that is shown its name and first image after each."""
    sets = {iteration: SyntheticSet.load(file) for iteration, file in snapshots}
    if not sets:
        return {}
    made = next(iter(sets.values()))
    names = [made.metadata["class_names"][label] for label in shown_classes(made)]
    images = [first_images(each) for each in sets.values()]
    tiles = [
        (name, [Tile(png_uri(of[row]), f"{name}, iteration {at:,}") for at, of in zip(sets, images, strict=True)])
        for row, name in enumerate(names)
    ]
    return {"iterations": [f"{iteration:,}" for iteration in sets], "classes": tiles}
