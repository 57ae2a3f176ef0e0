"""What networks have learned, as rows, a table and two pictures."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdd.core import files
from fastdd.core.text import printable
from fastdd.data import Dataset
from fastdd.report.palette import COLOURS, MARKERS, colour, group_colours, marker
from fastdd.session.explanation import Explanation
from fastdd.session.trained import StoredNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table


_DPI = 110
_MOST_IMAGES = 10
_SHARES = ("inside", "inside_all", "area")


def network_name(stored: StoredNetwork) -> str:
    """What a network was trained on, or by, in a few words."""
    if "evaluation" in stored.about:
        of = stored.about["evaluation"]["of"]
        name = of["method"] if of["debias"] == "none" else f"{of['method']}+{of['debias']}"
    else:
        train = stored.about["train"]
        name = train["training"] if train["use"] == "none" else f"{train['training']}, {train['use']}"
    return name


def explanation_row(found: Explanation, dataset: Dataset) -> dict[str, Any]:
    """One network: its file, what it was trained on, figures on the test images (percent), ``silhouette_class`` and
    ``silhouette_group``, the ``images`` and ``masks`` of RISE, and means over these images of ``inside``,
    ``inside_all`` and ``area``; None where a figure is not known."""
    saliency = found.saliency
    means = {name: _mean(getattr(found, name)) for name in _SHARES}
    return {
        "network": str(found.network.path),
        "of": network_name(found.network),
        "dataset": dataset.name,
        "test": dict(found.network.about["test"]),
        "features": len(found.tested),
        "silhouette_class": found.silhouette_class,
        "silhouette_group": found.silhouette_group,
        "images": len(found.explained),
        "masks": 0 if saliency is None else saliency.masks,
        **means,
        "inside_of_images": found.inside,
    }


def _mean(shares: Sequence[float | None] | None) -> float | None:
    known = [share for share in shares or () if share is not None]
    return float(np.mean(known)) if known else None


def explanation_table(rows: Sequence[Sequence[Mapping[str, Any]]], title: str) -> "Table":
    """A line for each sequence of :func:`explanation_row`, networks that were trained alike: means, and deviations."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("networks of", "", "accuracy", "silhouette by class", "by group", "saliency inside, %", "area, %"):
        table.add_column(name, justify="left" if name == "networks of" else "right", no_wrap=True)
    for alike in rows:
        accuracy = [row["test"]["accuracy"] for row in alike]
        shares = [[None if row[name] is None else 100 * row[name] for row in alike] for name in ("inside", "area")]
        table.add_row(
            alike[0]["of"],
            f"{len(alike)} x",
            _cell(accuracy, 1),
            _cell([row["silhouette_class"] for row in alike], 2),
            _cell([row["silhouette_group"] for row in alike], 2),
            _cell(shares[0], 1),
            _cell(shares[1][:1], 1),
        )
    return table


def _cell(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {np.std(known):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}"


def draw_features(found: Sequence[Explanation], dataset: Dataset, path: str | os.PathLike) -> None:
    """Write a PNG: a network a row, its features of test images in the plane, by class and by group."""
    from matplotlib.figure import Figure

    kinds = [("class", dataset.test.labels, dataset.class_names, "silhouette_class")]
    if dataset.num_groups > 1:
        kinds.append(("group", dataset.test.groups, dataset.group_names, "silhouette_group"))
    figure = Figure(figsize=(5.2 * len(kinds), 4.2 * len(found)), dpi=_DPI, layout="constrained")
    panels = figure.subplots(len(found), len(kinds), squeeze=False)
    for row, one in zip(panels, found, strict=True):
        for axes, (what, labels, names, figure_name) in zip(row, kinds, strict=True):
            _scatter(axes, one.plane, labels[one.tested], names, what)
            value = getattr(one, figure_name)
            told = "" if value is None else f": silhouette {value:.2f}"
            axes.set_title(printable(f"{network_name(one.network)}, by {what}{told}"), parse_math=False, fontsize=10)
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))


def _scatter(axes: "Axes", points: np.ndarray, labels: np.ndarray, names: Sequence[str], what: str) -> None:
    own = what == "group"  # groups that are colours have their own, which may be pale
    look = {"s": 9, "edgecolors": "#555555", "linewidths": 0.3} if own else {"s": 7, "linewidths": 0}
    colours = group_colours(names) if own else [colour(number) for number in range(len(names))]
    for number in np.unique(labels):
        here = points[labels == number]
        axes.scatter(*here.T, color=colours[number], marker=marker(number), label=str(number), **look)
    axes.set(xticks=[], yticks=[])
    if len(names) <= len(COLOURS) * len(MARKERS):
        legend = axes.legend(frameon=False, markerscale=3, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        for text in legend.get_texts():
            name = names[int(text.get_text())]
            text.set_parse_math(False)
            text.set_text(printable(name))


def draw_saliency(found: Sequence[Explanation], dataset: Dataset, path: str | os.PathLike) -> None:
    """Write a PNG: a test image a row, and beside it the saliency of each network on it, with the class that it
    is of, where that is not the image's, and its probability; the maps' floor is taken away, and each is bright at its
    own maximum."""
    from matplotlib.figure import Figure

    rows = found[0].explained[:_MOST_IMAGES]
    images = dataset.test.images[rows].transpose(0, 2, 3, 1)
    gray = images.mean(3) / 255
    columns = 1 + len(found)
    figure = Figure(figsize=(1.25 * columns + 0.2, 1.35 * len(rows) + 0.4), dpi=_DPI, layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for number, line in enumerate(panels):
        line[0].imshow(images[number].squeeze(), cmap="gray", interpolation="nearest", vmin=0, vmax=255)
        name = dataset.class_names[dataset.test.labels[rows[number]]]
        line[0].set_ylabel(printable(name), parse_math=False, fontsize=8)
        for axes, one in zip(line[1:], found, strict=True):
            values = one.saliency.excess[number].clip(0)
            axes.imshow(gray[number], cmap="gray", interpolation="nearest", vmin=0, vmax=1)
            axes.imshow(values, cmap="inferno", alpha=0.7, interpolation="nearest", vmin=0, vmax=values.max() or 1)
            told = f"p = {one.saliency.probability[number]:.2f}"
            if one.explained_classes[number] != dataset.test.labels[rows[number]]:
                told = f"{dataset.class_names[one.explained_classes[number]]}: {told}"
            axes.set_xlabel(printable(told), parse_math=False, fontsize=7, labelpad=1)
    for axes, name in zip(panels[0], ["image", *(network_name(one.network) for one in found)], strict=True):
        axes.set_title(printable(name), parse_math=False, fontsize=8)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))
