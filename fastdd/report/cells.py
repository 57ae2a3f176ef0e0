"""Accuracy of every class in every group as cells of a table, their test images, and what WA and DEO rest on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdd.data import Dataset
from fastdd.report.palette import cell_colours

# With fewer test images a cell's accuracy moves by five points or more with each.
LEAST = 20


@dataclass(frozen=True)
class Cell:
    """A class in a group.

    Attributes:
        text: its accuracy, percent; - without test images.
        images: how many of the test set; None where that is not known.
        style: CSS.
        few: it has images, and fewer than :data:`LEAST`.
    """

    text: str
    images: int | None
    style: str = ""
    few: bool = False


def images_of_cells(row: dict[str, Any], dataset: Dataset | None) -> np.ndarray | None:
    """Test images of every class and group, int64 [C, G]; None where they are not known.

    As the result has them, or, of one that an earlier version wrote, those of the data set, where its accuracies can be
    of so many.
    """
    accuracy = np.array([[np.nan if cell is None else cell for cell in line] for line in row["group_accuracy"]])
    if "group_images" in row:
        known = np.array(row["group_images"], np.int64)
        return known if known.shape == accuracy.shape else None
    if dataset is None or row.get("tested_on", "test") != dataset.tested_on:
        return None
    counts = dataset.test.counts(dataset.num_classes, dataset.num_groups)
    if counts.shape != accuracy.shape or not np.array_equal(counts == 0, np.isnan(accuracy)):
        return None
    right = np.nan_to_num(accuracy) / 100 * counts * row["nets"]
    return counts if np.allclose(right, np.rint(right), rtol=0, atol=1e-6) else None


def cells(row: dict[str, Any], images: np.ndarray | None) -> list[list[Cell]]:
    """Of every class (down) and group (across)."""
    return [
        [_cell(value, None if images is None else int(images[number, group])) for group, value in enumerate(line)]
        for number, line in enumerate(row["group_accuracy"])
    ]


def _cell(value: float | None, images: int | None) -> Cell:
    if value is None:
        return Cell("-", images)
    back, ink = cell_colours(value / 100)
    return Cell(f"{value:.0f}", images, f"background: {back}; color: {ink}", bool(images and images < LEAST))


def doubts_of_cells(
    row: dict[str, Any], images: np.ndarray | None, class_names: Sequence[str], group_names: Sequence[str]
) -> list[str]:
    """What of WA and DEO rests on fewer than 20 test images, a line each; cells are found by their mean accuracies."""
    if images is None or images.shape[1] < 2:
        return []
    accuracy = np.array([[np.nan if cell is None else cell for cell in line] for line in row["group_accuracy"]])
    if np.isnan(accuracy).all():
        return []

    def named(label: int, group: int) -> str:
        count = images[label, group]
        return f"{count} image{'' if count == 1 else 's'} of class {class_names[label]} in group {group_names[group]}"

    lines = []
    worst = divmod(int(np.nanargmin(accuracy)), accuracy.shape[1])
    if images[worst] < LEAST:
        lines.append(f"WA rests on {named(*worst)}, fewer than {LEAST}")
    ends = {
        label: (int(np.nanargmin(line)), int(np.nanargmax(line)))
        for label, line in enumerate(accuracy)
        if np.isfinite(line).sum() > 1
    }
    few = [label for label, groups in ends.items() if min(images[label, group] for group in groups) < LEAST]
    if ends:
        widest = max(ends, key=lambda label: accuracy[label, ends[label][1]] - accuracy[label, ends[label][0]])
        if widest in few:
            ours = " and ".join(named(widest, group) for group in dict.fromkeys(ends[widest]))
            lines.append(f"DEO_M is the gap between {ours}, of at least {LEAST} each for a figure to trust")
    if few:
        lines.append(
            f"DEO_A: in {len(few)} of {len(ends)} classes the gap rests on fewer than {LEAST} images of a group"
        )
    return lines
