"""What the severity of a bias does: images as it grows, and accuracy of sets distilled from them.

Figure 1 and table 2 of "Exploring the Impact of Dataset Bias on Dataset Distillation" (Biased-DD).
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastdd.core import files
from fastdd.data import Dataset
from fastdd.report.palette import colour, marker
from fastdd.studies.kept import KeptRows, Work

OPTION = "severity"
_DPI = 110
_MOST_CLASSES = 10


def missing(
    load: Callable[[int], Dataset], kept: KeptRows, *, severities: Sequence[int], modes: Sequence[str]
) -> dict[str, int]:
    """By debias mode, how many sets are still to be distilled and tested; arguments as those of :func:`study`."""
    digests = {severity: load(severity).digest() for severity in severities}
    keys = [_key(severity, digest, debias) for severity, digest in digests.items() for debias in modes]
    return dict(Counter(key["debias"] for key in keys if kept.find(key) is None))


def _key(severity: int, digest: str, debias: str) -> dict[str, Any]:
    return {"severity": severity, "debias": debias, "dataset_digest": digest}


def study(
    load: Callable[[int], Dataset],
    kept: KeptRows,
    *,
    severities: Sequence[int],
    modes: Sequence[str],
    work: Work,
    tell: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """Rows of every severity and debias mode: ``accuracy`` and ``deo_a``, percent, means and deviations over networks.

    Args:
        load: the data set of a severity.
        kept: where rows are, and go.
        severities: as the data set has them, 1..4 where LfF's and Biased-DD's do.
        modes: of debiasing, none among them for the plain method.
        work: how sets are made and tested.
        tell: called with every row as it is there.
    """
    rows = []
    for severity in severities:
        data = load(severity)
        for debias in modes:
            key = _key(severity, data.digest(), debias)
            rows.append(kept.get(key, partial(work.figures, data, debias)))
            tell(rows[-1])
    return rows


def examples(data: Dataset) -> np.ndarray:
    """uint8 [n, C, H, W]: the first training image of up to ten classes, in the class's largest group."""
    images = []
    for label in range(min(data.num_classes, _MOST_CLASSES)):
        rows = np.flatnonzero(data.train.labels == label)
        largest = np.bincount(data.train.groups[rows]).argmax()
        images.append(data.train.images[rows[data.train.groups[rows] == largest][0]])
    return np.stack(images)


def draw(
    rows: Sequence[Mapping[str, Any]], grid: Mapping[int, np.ndarray], path: str | os.PathLike, title: str
) -> None:
    """Write a PNG: a severity a row of images, beside accuracy over severity.

    Args:
        rows: of :func:`study`.
        grid: of each severity its :func:`examples`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=_DPI, layout="constrained")
    pictures, curves = figure.subplots(1, 2, width_ratios=(6, 4))
    framed = {severity: np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))) for severity, images in grid.items()}
    lines = [np.concatenate(list(images.transpose(0, 2, 3, 1)), 1) for images in framed.values()]
    height = lines[0].shape[0]
    pictures.imshow(np.concatenate(lines).squeeze(), cmap="gray", interpolation="nearest")
    pictures.set_yticks([height * (number + 0.5) for number in range(len(grid))], [str(severity) for severity in grid])
    pictures.set(xticks=[], ylabel="severity")
    for number, debias in enumerate(dict.fromkeys(row["debias"] for row in rows)):
        own = [row for row in rows if row["debias"] == debias]
        means, deviations = ([row["accuracy"][name] for row in own] for name in ("mean", "std"))
        name = "no debiasing" if debias == "none" else debias
        at = [row["severity"] for row in own]
        curves.errorbar(
            at, means, deviations, fmt=f"{marker(number)}-", ms=4, capsize=3, color=colour(number), label=name
        )
    curves.set(xlabel="severity", ylabel="accuracy, %", ylim=(0, 100), xticks=list(grid))
    curves.legend(frameon=False, fontsize=8)
    figure.suptitle(title, parse_math=False)
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))
