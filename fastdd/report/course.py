"""Figures of evaluations on the way over iterations: a curve a run, or one for runs that differ in their seed only."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastdd.evaluation.repeats import repeats
from fastdd.report import charts
from fastdd.report.labels import labels
from fastdd.report.record import Record
from fastdd.report.results import CURVE_METRICS, TITLES, networks, set_name


def repeated(records: Sequence[Record]) -> list[list[int]]:
    """Numbers of the records that are repeats of one run, in the order of the first ones; others stand alone."""
    kinds: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        about = {name: value for name, value in record.config.items() if name != "seed"} or number
        kinds.setdefault(json.dumps(about, sort_keys=True, default=str), []).append(number)
    return list(kinds.values())


def course(records: Sequence[Record], baselines: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Of evaluations on the way: how they were made, and a chart of every figure; empty where there are none.

    Results of baselines are drawn as levels.

    Of repeats a point is the mean over distillations, with its 95 % interval (Student's t), after iterations that all
    of them were evaluated after, by the same kind of networks.
    """
    kinds = repeated(records)
    names = labels([records[numbers[0]] for numbers in kinds])
    series = [(name, [records[number] for number in numbers]) for name, numbers in zip(names, kinds, strict=True)]
    rows = [row for record in records for row in record.evaluations]
    several = {number for number, (_, alike) in enumerate(series) if len(alike) > 1}
    pictures = []
    for metric in CURVE_METRICS:
        curves = [(name, points(alike, metric)) for name, alike in series]
        if any(found for _, found in curves):
            picture = charts.course(
                curves, x="iteration", y="%", limits=(0, 100), barred=several, levels=_levels(baselines, metric)
            )
            pictures.append((TITLES[metric], picture))
    about = {
        "networks": list(dict.fromkeys(map(networks, rows))),
        "splits": {row["tested_on"] for row in rows},
        "repeats": any(alike[0].evaluations for _, alike in series if len(alike) > 1),
        "single": any(alike[0].evaluations for _, alike in series if len(alike) == 1),
    }
    return {**about, "charts": pictures, "metrics": CURVE_METRICS} if rows else {}


def _levels(baselines: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[str, float]]:
    return [(set_name(row), row[metric]["mean"]) for row in baselines if row[metric]["mean"] is not None]


def points(alike: Sequence[Record], metric: str) -> list[tuple[int, float, float]]:
    """(iteration, mean, spread) of repeats, or of one run: half of the interval over distillations, or the deviation
    over networks. The curve is broken, by NaN, between points that other networks made."""
    by_run = [
        {(row["iteration"], networks(row)): row for row in record.evaluations if row[metric]["mean"] is not None}
        for record in alike
    ]
    found: list[tuple[int, float, float]] = []
    before = None
    for iteration, by in by_run[0]:
        rows = [of_run[iteration, by] for of_run in by_run if (iteration, by) in of_run]
        if len(rows) < len(alike):
            continue
        means, deviations = ([row[metric][name] for row in rows] for name in ("mean", "std"))
        over = repeats(means, deviations, rows[0]["nets"])
        if before not in (None, by):
            found.append((iteration, math.nan, math.nan))
        found.append((iteration, over.mean, deviations[0] if over.interval is None else over.interval))
        before = by
    return found
