"""The images behind weights: the heaviest and the lightest of every class, in the terminal, as a CSV and as a page."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdd.core import files
from fastdd.core.text import printable
from fastdd.data import Dataset
from fastdd.debias.density.kde import KdeWeights, Verdict, neighbours
from fastdd.debias.density.kde.verdict import WORDS
from fastdd.report.pictures import write_grid
from fastdd.report.tiles import MOST_CLASSES, png_uri

if TYPE_CHECKING:
    from rich.table import Table

_NEIGHBOURS = 3


@dataclass(frozen=True, eq=False)
class WeightedImages:
    """Weights, and the training images that they are of.

    Attributes:
        data: the data set.
        made: its weights.
        paths: of its training images, one an image; None where they are not known.
    """

    data: Dataset
    made: KdeWeights
    paths: Sequence[str] | None = None

    @cached_property
    def relative(self) -> np.ndarray:
        """n * w of every image: 1 counts as much as on average in its class."""
        labels = self.data.train.labels
        return np.bincount(labels)[labels] * self.made.weights.astype(np.float64)

    def order(self, label: int) -> np.ndarray:
        """The rows of a class, the heaviest first; of equal ones, as the largest are, those of the least density."""
        rows = np.flatnonzero(self.data.train.labels == label)
        return rows[np.lexsort((rows, self.made.log_density[rows], -self.made.weights[rows]))]

    def extremes(self, label: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a class: the heaviest, from the heaviest on, and the lightest, from the lightest on; none in both."""
        order = self.order(label)
        heavy = order[: min(count, (len(order) + 1) // 2)]
        return heavy, order[len(heavy) :][::-1][:count]

    def group(self, row: int) -> str:
        """The name of an image's group; nothing where no groups are known."""
        return self.data.group_names[self.data.train.groups[row]] if self.data.num_groups > 1 else ""

    def told(self, row: int) -> str:
        """An image in words: its path or its number, its group and its weight."""
        name = f"{row}" if self.paths is None else f"{row} {self.paths[row]}"
        group = self.group(row)
        return f"{name}{f', {group}' if group else ''}: {self.relative[row]:.2f}"


def weight_extremes_table(of: WeightedImages, count: int) -> "Table":
    """The heaviest and the lightest images of every class, as a rich table; of more than 20 classes, 20 of them."""
    from rich.table import Table

    shown = _shown(of.data)
    left = "" if len(shown) == of.data.num_classes else f", {len(shown)} of {of.data.num_classes} classes"
    table = Table(title=f"images by weight (n * w; 1: as on average){left}", title_justify="left", show_lines=True)
    for column in ("class", "heaviest", "lightest"):
        table.add_column(column, overflow="fold")
    for label in shown:
        sides = ["\n".join(map(of.told, rows.tolist())) for rows in of.extremes(label, count)]
        table.add_row(printable(of.data.class_names[label]), *map(printable_lines, sides))
    return table


def printable_lines(text: str) -> str:
    """Lines, each without what moves a cursor."""
    return "\n".join(map(printable, text.split("\n")))


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict, its reasons, and what the weights did."""
    reasons = f": {'; '.join(verdict.reasons)}" if verdict.reasons else ""
    return [*verdict.facts, f"verdict: {WORDS[verdict.level]}{reasons}"]


def write_weights_csv(path: str | os.PathLike, of: WeightedImages) -> None:
    """Write a row a training image: index, path, class, group, weight, n_weight (n * w), log_density, rank in its class
    (1: the heaviest), and the indices of its three nearest neighbours in its class, with spaces between."""
    train, made = of.data.train, of.made
    ranks = np.empty(len(train), np.int64)
    for label in range(of.data.num_classes):
        order = of.order(label)
        ranks[order] = np.arange(1, len(order) + 1)
    near = neighbours(made.embeddings, train.labels, np.arange(len(train)), _NEIGHBOURS)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("index", "path", "class", "group", "weight", "n_weight", "log_density", "rank", "nearest_neighbours")
    )
    for row in range(len(train)):
        writer.writerow(
            (
                row,
                "" if of.paths is None else of.paths[row],
                of.data.class_names[train.labels[row]],
                of.group(row),
                f"{made.weights[row]:.9g}",
                f"{of.relative[row]:.6g}",
                f"{made.log_density[row]:.9g}",
                ranks[row],
                " ".join(str(other) for other in near[row] if other >= 0),
            )
        )
    files.write_text(path, text.getvalue())


def write_contact_sheet(path: str | os.PathLike, of: WeightedImages, count: int) -> None:
    """Write a PNG: a class a row, its ``count`` heaviest images, a gap, and its lightest, the lightest last."""
    rows = []
    for label in _shown(of.data):
        heavy, light = of.extremes(label, count)
        images = of.data.train.images
        blank = np.full((1, *images.shape[1:]), 255, np.uint8)
        filled = [*images[heavy], *(blank[0] for _ in range(count - len(heavy) + 1))]
        filled += [*(blank[0] for _ in range(count - len(light))), *images[light[::-1]]]
        rows.append(np.stack(filled))
    titles = [*(f"heavy {n}" for n in range(1, count + 1)), "", *(f"light {n}" for n in range(count, 0, -1))]
    names = [printable(of.data.class_names[label]) for label in _shown(of.data)]
    write_grid(rows, 2 * count + 1, path, titles, names)


def write_weights_page(
    path: str | os.PathLike, of: WeightedImages, verdict: Verdict, rows: Sequence[dict[str, Any]], count: int
) -> None:
    """Write a self-contained HTML page: the verdict, figures of every class, and its heaviest and lightest images, the
    heaviest with their nearest neighbours."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    template = (resources("fastdd.report") / "weights.html.j2").read_text(encoding="utf-8")
    shown = _shown(of.data)
    stability = verdict.stability
    text = environment.from_string(template).render(
        name=of.data.name,
        level=verdict.level,
        word=WORDS[verdict.level],
        reasons=verdict.reasons,
        facts=verdict.facts,
        rows=[
            {**row, "top": verdict.top[n], "heaviest": verdict.heaviest[n], "stability": stability[n]}
            for n, row in enumerate(rows)
        ],
        grouped=of.data.num_groups > 1,
        measured_by=verdict.measured_by,
        hidden=of.data.num_classes - len(shown),
        classes=[_class(of, label, count) for label in shown],
        settings=of.made.metadata,
    )
    files.write_text(path, text)


def _class(of: WeightedImages, label: int, count: int) -> dict[str, Any]:
    heavy, light = of.extremes(label, count)
    near = neighbours(of.made.embeddings, of.data.train.labels, heavy, _NEIGHBOURS)
    return {
        "name": of.data.class_names[label],
        "heavy": [
            {**_tile(of, row), "near": [_tile(of, other) for other in others if other >= 0]}
            for row, others in zip(heavy.tolist(), near.tolist(), strict=True)
        ],
        "light": [{**_tile(of, row), "near": []} for row in light.tolist()],
    }


def _tile(of: WeightedImages, row: int) -> dict[str, Any]:
    label = of.data.class_names[of.data.train.labels[row]]
    return {
        "src": png_uri(of.data.train.images[row]),
        "alt": f"training image {row} of class {label}",
        "row": row,
        "path": "" if of.paths is None else of.paths[row],
        "group": of.group(row),
        "weight": f"{of.relative[row]:.2f}",
    }


def _shown(data: Dataset) -> list[int]:
    """All classes, or 20 of them, evenly spaced."""
    most = min(data.num_classes, MOST_CLASSES)
    return np.unique(np.linspace(0, data.num_classes - 1, most).astype(int)).tolist()


def sheet_beside(page: Path) -> Path:
    """Where the contact sheet of a page is."""
    return page.with_suffix(".png")
