"""Curves of networks' training: loss, figures on validation images, and what bias-conflicting images count."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastdd.core import reading
from fastdd.evaluation import METRICS
from fastdd.report import charts

_FIGURES = ("accuracy", "wa", "ba")
# What a weight is of, and its axis.
_WEIGHTS = {
    "loss": ("Weight in the loss", "mean weight"),
    "partner": ("Times that an image was the partner of another, in an epoch", "mean number of times"),
}
_KINDS = {"aligned": "bias-aligned", "conflicting": "bias-conflicting"}


def check_history(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """ValueError, naming the file, where a row of a training's log has not what its curves are made of."""
    for row in rows:
        figures = [row[name] for name in _FIGURES if name in row]
        weights = row.get("weights", {})
        if (
            not isinstance(row.get("stage"), str)
            or not isinstance(weights, dict)
            or not weights.keys() <= _WEIGHTS.keys()
        ):
            raise ValueError(f"{path} is damaged: a row of it is of no training")
        for each in weights.values():
            figures += [each.get(kind) if isinstance(each, dict) else None for kind in _KINDS]
        if not all(map(reading.is_number, figures)):
            raise ValueError(f"{path} is damaged: a figure of it is no number")


def training_charts(
    histories: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], titles: Mapping[str, tuple[str, str]]
) -> list[tuple[str, str]]:
    """(title, SVG) of every chart that there is something for; epochs of all stages are counted on.

    Args:
        histories: of every run, its name and its rows (:attr:`fastdd.session.trained.TrainedNetwork.history`).
        titles: of the figures.
    """

    def points(rows: Sequence[Mapping[str, Any]], *names: str) -> list[tuple[int, float, float]]:
        """A curve, broken between stages."""
        found: list[tuple[int, float, float]] = []
        for number, row in enumerate(rows, 1):
            value: Any = row
            for name in names:
                value = value.get(name, {})
            if value == {}:
                continue
            if number > 1 and rows[number - 2]["stage"] != row["stage"]:
                found.append((number, math.nan, math.nan))
            found.append((number, float(value), 0.0))
        return found

    pictures = []

    def chart(title: str, series: list[tuple[str, list[tuple[int, float, float]]]], y: str) -> None:
        if any(values for _, values in series):
            pictures.append((title, charts.course(series, x="epoch", y=y)))

    chart("Loss", [(name, points(rows, "loss")) for name, rows in histories], "loss")
    for figure in (name for name in METRICS if name in _FIGURES):
        series = [(name, points(rows, figure)) for name, rows in histories]
        title = titles[figure][0]
        chart(f"{title[0].upper()}{title[1:]} on validation images", series, "%")
    for weight, (title, y) in _WEIGHTS.items():
        series = [
            (kind if len(histories) == 1 else f"{name}: {kind}", points(rows, "weights", weight, key))
            for name, rows in histories
            for key, kind in _KINDS.items()
        ]
        chart(title, series, y)
    return pictures
