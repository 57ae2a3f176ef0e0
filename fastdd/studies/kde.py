"""What the kernel's variance, the temperature and the cut-off of KDE weights do to a distilled set.

The ablation of "Mitigating Bias in Dataset Distillation" (its figures 4 and 8): accuracy on the unbiased test set of
networks trained on the synthetic images, and, below, weight on the bias-conflicting images and effective sample size,
means over classes.
"""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from fastdd import api
from fastdd.core import files
from fastdd.data import Dataset
from fastdd.debias.density import kde
from fastdd.debias.density.kde import KdeSettings, KdeWeights, kde_weights
from fastdd.studies.kept import KeptRows, Work

# The published ranges are those of figures 4 and 8, which say where the best lies: 0.1 for variance and temperature.
KNOBS: dict[str, tuple[float, ...]] = {
    "variance": (0.001, 0.01, 0.1, 0.3, 1.0, 3.0),
    "temperature": (0.05, 0.1, 0.25, 0.5, 1.0, 3.0),
    "clip": (1.25, 2.0, 3.0, 5.0, 10.0, 100.0),
}
_TITLES = {"variance": "variance of the kernel, σ²", "temperature": "temperature", "clip": "cut-off of scores"}
_ACCURACY, _MASS, _ESS = "#2e7d4f", "#c8553d", "#4a7fb5"
_DPI = 100


def measure(data: Dataset, made: KdeWeights | None, debias: str, work: Work) -> dict[str, Any]:
    """Accuracy and DEO_A of a set, and what the weights do."""
    figures = work.figures(data, debias, None if made is None else made.weights)
    row: dict[str, Any] = {name: figure["mean"] for name, figure in figures.items()}
    if made is not None:
        diagnostics = made.diagnostics(data.train.labels, data.train.groups)
        auc = kde.rarity(made.log_density, data.train.labels, data.train.groups).auc
        row |= {"conflict_mass": float(np.mean(diagnostics.conflict_mass)), "ess": float(np.mean(diagnostics.ess))}
        row["auc"] = float(np.mean([value for value in auc if value is not None]))
    return row


def planned(knobs: Mapping[str, Sequence[float]]) -> list[tuple[dict[str, Any], KdeSettings | None]]:
    """The key of every row, and its settings; None for DM and DM+FairDD.

    Raises:
        ValueError: a knob's value out of range.
    """
    plain = [({"debias": debias, "knob": None, "value": None}, None) for debias in ("none", "fairdd")]
    return plain + [
        ({"debias": "kde", "knob": knob, "value": value}, KdeSettings(**{knob: value}))
        for knob, values in knobs.items()
        for value in values
    ]


def missing(kept: KeptRows, knobs: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """By debias mode, how many sets are still to be distilled and tested: rows of the same settings share one."""
    sets = dict.fromkeys((key["debias"], config) for key, config in planned(knobs) if kept.find(key) is None)
    return dict(Counter(debias for debias, _ in sets))


def study(
    data: Dataset,
    kept: KeptRows,
    *,
    knobs: Mapping[str, Sequence[float]],
    work: Work,
    tell: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """Rows of DM, DM+FairDD, and DM+KDE for every value of every knob, the others at their defaults.

    Args:
        data: with groups, which say what conflicts.
        kept: where rows are, and go.
        knobs: values of ``variance``, ``temperature`` and ``clip``.
        work: how sets are made and tested.
        tell: called with every row as it is there.

    Returns:
        Rows: ``knob`` and ``value`` (None for DM and DM+FairDD), ``debias``, ``accuracy`` and ``deo_a`` in percent;
        with KDE ``conflict_mass``, ``ess`` and ``auc``, means over classes.

    Raises:
        ValueError: data with one group, a class without bias-conflicting images, or a knob's value out of range.
    """
    if data.num_groups < 2:
        raise ValueError(f"the study tells what weights do to bias-conflicting images, and {data.name} has one group")
    if None in _without_density(data).auc:
        raise ValueError(f"a class of {data.name} has no bias-conflicting images: lower the bias ratio")
    rows_of_study = planned(knobs)

    @cache
    def embeddings() -> np.ndarray:
        return api.kde_weights(data, **{name: work.distillation[name] for name in ("seed", "device")}).embeddings

    @cache
    def of_settings(config: KdeSettings) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that a class has few effective images is a result
            chosen = {name: getattr(config, name) for name in KNOBS}
            made = kde_weights(embeddings(), data.train.labels, **chosen)
        return measure(data, made, "kde", work)

    def make(debias: str, config: KdeSettings | None) -> dict[str, Any]:
        return measure(data, None, debias, work) if config is None else of_settings(config)

    rows = []
    for key, config in rows_of_study:
        rows.append(kept.get(key, partial(make, key["debias"], config)))
        tell(rows[-1])
    return rows


def title(data: Dataset, ipc: int) -> str:
    """Of the picture."""
    aligned = 1 - _without_density(data).conflicting.mean()
    return f"{data.name}, {100 * aligned:.3g} % bias-aligned, {ipc} images a class; grey: default"


def _without_density(data: Dataset) -> kde.Rarity:
    """What is known of conflicting images before any density is."""
    return kde.rarity(np.zeros(len(data.train)), data.train.labels, data.train.groups)


def draw(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike, title: str) -> None:
    """Write a PNG, one panel a knob."""
    from matplotlib.figure import Figure

    knobs = list(dict.fromkeys(row["knob"] for row in rows if row["knob"]))
    figure = Figure(figsize=(1 + 10 / 3 * len(knobs), 4.6), dpi=_DPI, layout="constrained")
    panels = figure.subplots(2, len(knobs), sharex="col", sharey="row", height_ratios=(3, 2), squeeze=False)
    plain, fair = (next(row for row in rows if row["debias"] == debias) for debias in ("none", "fairdd"))
    largest = max(row["ess"] for row in rows if row["knob"])
    for number, knob in enumerate(knobs):
        own = sorted((row for row in rows if row["knob"] == knob), key=lambda row: row["value"])
        values = [row["value"] for row in own]
        top, below = panels[:, number]
        top.plot(values, [row["accuracy"] for row in own], "o-", color=_ACCURACY, label="DM+KDE")
        top.axhline(fair["accuracy"], color="#555555", ls="--", lw=1, label="DM+FairDD (groups known)")
        top.axhline(plain["accuracy"], color="#555555", ls=":", lw=1, label="DM")
        below.plot(values, [100 * row["conflict_mass"] for row in own], "s-", color=_MASS, ms=4)
        sizes = below.twinx()
        sizes.plot(values, [row["ess"] for row in own], "^-", color=_ESS, ms=4)
        sizes.set(yscale="log", ylim=(0.9, 1.2 * largest))
        below.set(xscale="log", xlabel=_TITLES[knob], ylim=(0, 105))
        top.set(ylim=(0, 100))
        for axes in (top, below):
            axes.axvline(getattr(KdeSettings(), knob), color="#bbbbbb", lw=6, alpha=0.4, zorder=0)
        if number == 0:
            top.set_ylabel("unbiased accuracy, %")
            below.set_ylabel("weight on\nconflicting, %", color=_MASS)
        if number == len(knobs) - 1:
            sizes.set_ylabel("effective sample size", color=_ESS)
            top.legend(frameon=False, loc="center right", fontsize=8)
        else:
            sizes.set_yticklabels([])
    figure.suptitle(title, parse_math=False)
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))
