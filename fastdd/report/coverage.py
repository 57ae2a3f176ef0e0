"""What of one class synthetic images cover: its real images by group in the plane, and the synthetic ones on top.

FairDD's figure 4, there of DM and DM+FairDD: vanilla matching's images lie where the majority group is.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastdd import models
from fastdd.core import files, rng
from fastdd.core.text import printable
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import in_order_of
from fastdd.evaluation.audit.means import covered_by, stratified_rows
from fastdd.evaluation.features import Projection, drawn_rows, features_of, in_plane, seen_images
from fastdd.report import charts
from fastdd.report.palette import group_colours
from fastdd.session.trained import StoredNetwork

# Real images of every group of the class, and of all other classes together.
_OF_GROUP, _OTHERS = 200, 1000
_DPI = 110


@dataclass(frozen=True)
class Panel:
    """The class as one network sees it, beside one set.

    Attributes:
        name: of the set.
        others: float [L, 2], real images of other classes.
        real: float [N, 2], those of the class. groups: int64 [N], theirs.
        made: float [M, 2], the class's synthetic images.
        shares: by group, the share of its real images with a synthetic one near, in all dimensions
            (:func:`fastdd.evaluation.audit.means.covered_by`); of groups that have images.
        aligned: the class's largest group.
    """

    name: str
    others: np.ndarray
    real: np.ndarray
    groups: np.ndarray
    made: np.ndarray
    shares: Mapping[int, float]
    aligned: int

    @property
    def caption(self) -> str:
        """What the set covers."""
        rest = [share for group, share in self.shares.items() if group != self.aligned]
        told = f"covers {100 * self.shares[self.aligned]:.0f} % of the largest group"
        return told + (f", {100 * np.mean(rest):.0f} % of the others" if rest else "")


@dataclass(frozen=True)
class ClassCoverage:
    """One class of a data set beside several sets.

    Attributes:
        class_name: the class.
        about: what is seen, in words.
        group_names: of the data set.
        panels: one a set.
    """

    class_name: str
    about: str
    group_names: Sequence[str]
    panels: Sequence[Panel]

    @property
    def colours(self) -> dict[int, tuple[str, str]]:
        """Name and colour of every group that the class has."""
        groups = sorted({group for panel in self.panels for group in panel.shares})
        colours = group_colours(self.group_names)
        return {group: (self.group_names[group], colours[group]) for group in groups}

    def pictures(self) -> list[tuple[str, str]]:
        """Of every panel its caption and its SVG."""
        return [
            (
                f"{one.name}: {one.caption}",
                charts.coverage_picture(one.others, one.real, one.groups, one.made, self.colours),
            )
            for one in self.panels
        ]


def class_number(dataset: Dataset, name: str) -> int:
    """The number of a class by its name, or by its number where no class is called so.

    Raises:
        ValueError: there is none.
    """
    if name in dataset.class_names:
        return dataset.class_names.index(name)
    if name.isdecimal() and int(name) < dataset.num_classes:
        return int(name)
    known = ", ".join(dataset.class_names[:10]) + (", ..." if dataset.num_classes > 10 else "")
    raise ValueError(f"{dataset.name} has no class {name!r} to highlight; it has {known}")


def class_coverage(
    sets: Sequence[tuple[str, SyntheticSet, StoredNetwork | None]],
    dataset: Dataset,
    name: str,
    *,
    projection: Projection = "pca",
    seed: int = 0,
) -> ClassCoverage:
    """Training images of a class, up to 200 of a group, and each set's synthetic ones of it.

    Args:
        sets: each its name, the set, and the network whose features are looked at; None: one random ConvNet for all,
            as in the published figure. Sets that one network sees alike share the plane of ``pca``.
        dataset: theirs.
        name: of the class.
        projection: pca or tsne.
        seed: which real images, and the random network.

    Raises:
        ValueError: no such class, a class without training images, or a set without images of it.

    Cost: a forward pass of the images, and t-SNE where asked for. Deterministic on a machine and thread count.
    """
    label = class_number(dataset, name)
    train, counts = dataset.train, dataset.train.counts(dataset.num_classes, dataset.num_groups)[label]
    if not counts.any():
        raise ValueError(f"{dataset.name} has no training images of class {dataset.class_names[label]}")
    cells = np.where(train.labels == label, train.groups, dataset.num_groups)
    own = stratified_rows(cells, dataset.num_groups, _OF_GROUP, rng.key(seed, "coverage-rows"))
    rest = np.flatnonzero(train.labels != label)
    others = rest[drawn_rows(train.take(rest), _OTHERS, rng.key(seed, "coverage-others"))] if len(rest) else rest
    rows, groups = np.concatenate([own, others]), train.groups[own]
    split, key = train.take(rows), rng.key(seed, "report-net")
    sampled = np.bincount(groups, minlength=dataset.num_groups)
    stands_for = torch.from_numpy(counts[groups] / sampled[groups])
    panels = []
    for title, found, stored in sets:
        made = in_order_of(dataset, found).decoded()
        images = made.images[made.labels == label]
        if not len(images):
            raise ValueError(f"{title} has no images of class {dataset.class_names[label]}")
        read = stored.read(split) if stored else seen_images(split, dataset, made.zca)
        net = models.build("ConvNet", dataset.channels, dataset.num_classes, dataset.size, key=key)
        features = features_of(stored.net if stored else net, torch.cat([read.read(torch.arange(len(rows))), images]))
        plane = in_plane(features, projection, fitted=len(rows))
        deep = torch.from_numpy(features).double()
        near, _ = covered_by(deep[: len(own)], deep[len(rows) :], stands_for)
        shares = {int(group): float(near.numpy()[groups == group].mean()) for group in np.unique(groups)}
        parts = plane[len(own) : len(rows)], plane[: len(own)], groups, plane[len(rows) :]
        panels.append(Panel(title, *parts, shares, int(counts.argmax())))
    of = "networks that were trained on the sets" if sets[0][2] else "a random ConvNet"
    about = (
        f"Training images of class {dataset.class_names[label]} by group in the features of {of}, synthetic ones of it "
        "as stars, other classes pale. Covered: a synthetic image is within the median distance of the class's images "
        "to their nearest other, in all dimensions."
    )
    return ClassCoverage(dataset.class_names[label], about, dataset.group_names, panels)


def draw_coverage(found: ClassCoverage, path: str | os.PathLike) -> None:
    """Write a PNG: a panel a set, two in a row."""
    from matplotlib.figure import Figure

    columns = min(2, len(found.panels))
    lines = math.ceil(len(found.panels) / columns)
    figure = Figure(figsize=(5.6 * columns, 4.4 * lines), dpi=_DPI, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, one in zip(panels, found.panels, strict=False):
        charts.coverage(axes, one.others, one.real, one.groups, one.made, found.colours)
        charts.coverage_legend(axes, found.colours)
        axes.set_title(f"{printable(one.name)}\n{one.caption}", parse_math=False, fontsize=9)
    for axes in panels[len(found.panels) :]:
        axes.set_visible(False)
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))
