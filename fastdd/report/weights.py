"""What weights do to every class: a table, rows for JSON, and a picture."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdd.core import files
from fastdd.core.text import printable
from fastdd.debias.density.kde import Diagnostics, Rarity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

_DPI = 110
_BINS = 40
_ALIGNED, _CONFLICTING = "#7a8794", "#c8553d"


def weight_rows(diagnostics: Diagnostics, class_names: Sequence[str], rarity: Rarity) -> list[dict[str, Any]]:
    """One row a class: class, images, ess, largest (n * w), conflict_share, conflict_mass and auc, that of 1 / density
    as a detector of bias-conflicting images (None: not known)."""
    unknown = [None] * len(class_names)
    columns = {
        "class": class_names,
        "images": diagnostics.counts,
        "ess": diagnostics.ess,
        "largest": diagnostics.largest,
        "conflict_share": diagnostics.conflict_share or unknown,
        "conflict_mass": diagnostics.conflict_mass or unknown,
        "auc": rarity.auc or unknown,
    }
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def weight_table(
    diagnostics: Diagnostics, class_names: Sequence[str], rarity: Rarity, title: str | None = None
) -> "Table":
    """:func:`weight_rows` and their means as a rich table; shares in percent."""
    from rich.table import Table

    known = diagnostics.conflict_mass is not None
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for name in (
        "images",
        "ESS",
        "largest n*w",
        *(("conflicting, %", "their weight, %", "AUC") if known else ()),
    ):
        table.add_column(name, justify="right")
    rows = weight_rows(diagnostics, class_names, rarity)
    formats = {"images": ".0f", "ess": ".1f", "largest": ".1f"}
    if known:
        formats |= {"conflict_share": ".1%", "conflict_mass": ".1%", "auc": ".3f"}

    def add(name: str, figures: dict[str, float | None]) -> None:
        cells = ((figures[column], style) for column, style in formats.items())
        table.add_row(name, *("-" if value is None else format(value, style).rstrip("%") for value, style in cells))

    for row in rows:
        add(row["class"], row)
    table.add_section()
    columns = {column: [row[column] for row in rows if row[column] is not None] for column in formats}
    add("mean", {column: float(np.mean(values)) if values else None for column, values in columns.items()})
    return table


def weight_summary(diagnostics: Mapping[str, Any]) -> str:
    """One line from the fields of :class:`fastdd.debias.density.kde.Diagnostics`.

    >>> weight_summary({"counts": [50], "ess": [15.0], "conflict_mass": [0.6], "conflict_share": [0.1]})
    'weights: worth 15 of 50 images a class (least 15); 60 % of them on bias-conflicting images, which are 10 %'
    """
    ess = diagnostics["ess"]
    line = f"weights: worth {np.mean(ess):.0f} of {np.mean(diagnostics['counts']):.0f} images a class"
    line += f" (least {min(ess):.0f})"
    if diagnostics["conflict_mass"] is not None:
        mass, share = (np.mean(diagnostics[name]) for name in ("conflict_mass", "conflict_share"))
        line += f"; {mass:.0%} of them on bias-conflicting images, which are {share:.0%}".replace("%", " %")
    return line


def plot_weights(
    diagnostics: Diagnostics, class_names: Sequence[str], rarity: Rarity, path: str | os.PathLike, title: str = ""
) -> None:
    """Write a PNG: images by 1 / density, with its AUC as a detector of bias-conflicting images, and by n * w, aligned
    and conflicting ones apart where known; ESS and weight per class."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.6), dpi=_DPI, layout="constrained")
    rare, spread, sizes = figure.subplots(1, 3, width_ratios=(3, 3, 4))
    draw_rarity(rare, rarity)
    _draw_spread(spread, diagnostics)
    _draw_sizes(sizes, diagnostics, class_names)
    figure.suptitle(printable(title), parse_math=False)
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))


def draw_rarity(axes: "Axes", rarity: Rarity) -> None:
    """Histograms of 1 / density in units of each class's median, and the mean AUC over classes."""
    conflicting = rarity.conflicting
    parts = [(rarity.nats, _ALIGNED, "all images")]
    if conflicting is not None:
        parts = [(rarity.nats[~conflicting], _ALIGNED, "bias-aligned")]
        parts.append((rarity.nats[conflicting], _CONFLICTING, "bias-conflicting"))
    edges = np.linspace(rarity.nats.min(), max(rarity.nats.max(), rarity.nats.min() + 1e-6), _BINS + 1)
    for values, color, label in parts:
        axes.hist(values, edges, alpha=0.75, color=color, label=label)
    axes.set(yscale="log", xlabel="log of 1 / density (0: the class's median)", ylabel="training images")
    known = [value for value in rarity.auc or () if value is not None]
    if known:
        told = f"AUC of 1 / density, mean over classes: {np.mean(known):.3f} ({min(known):.3f} to {max(known):.3f})"
        axes.set_title(told, fontsize=9)
    axes.legend(frameon=False)


def _draw_spread(spread: "Axes", diagnostics: Diagnostics) -> None:
    edges = np.array(diagnostics.edges)
    total = np.array(diagnostics.histogram).sum(0)
    conflicting = diagnostics.conflict_histogram
    of_conflicting = np.zeros_like(total) if conflicting is None else np.array(conflicting).sum(0)
    parts = [(total - of_conflicting, _ALIGNED, "all images" if conflicting is None else "bias-aligned")]
    if conflicting is not None:
        parts.append((of_conflicting, _CONFLICTING, "bias-conflicting"))
    for counts, color, label in parts:
        spread.stairs(counts, edges, fill=True, alpha=0.75, color=color, label=label)
    filled = np.flatnonzero(total)
    spread.set(
        xscale="log",
        yscale="log",
        xlim=(edges[max(0, filled[0] - 1)], edges[min(len(total), filled[-1] + 2)]),
        ylim=(0.8, 2 * total.max()),
        xlabel="n * weight (1: as much as on average)",
        ylabel="training images",
    )
    spread.legend(frameon=False)


def _draw_sizes(sizes: "Axes", diagnostics: Diagnostics, class_names: Sequence[str]) -> None:
    places = np.arange(len(class_names))
    sizes.bar(places, diagnostics.ess, 0.62, color=_ALIGNED)
    sizes.set(ylabel="effective sample size", ylim=(0, 1.25 * max(diagnostics.ess)))
    names = [printable(name) for name in class_names]
    sizes.set_xticks(places, names, rotation=0 if max(map(len, names)) < 4 else 45, parse_math=False)
    if diagnostics.conflict_mass is not None:
        mass = sizes.twinx()
        for values, marker, label in (
            (diagnostics.conflict_mass, "o", "share of the weight"),
            (diagnostics.conflict_share, "_", "share of the images"),
        ):
            mass.plot(places, 100 * np.array(values), marker, color=_CONFLICTING, markersize=9, label=label)
        mass.set(ylim=(0, 125), yticks=range(0, 101, 20))
        mass.set_ylabel("bias-conflicting, %", color=_CONFLICTING)
        mass.legend(frameon=False, ncols=2, loc="upper right")
