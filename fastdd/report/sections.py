"""Parts of a page that are of all its runs, or of a run's results, as its template asks for them."""

from collections.abc import Sequence
from typing import Any

from fastdd.data import Dataset
from fastdd.evaluation import METRICS
from fastdd.evaluation.doubts import FEW_IMAGES
from fastdd.report import charts
from fastdd.report.baselines import command_for
from fastdd.report.cells import LEAST, cells, doubts_of_cells, images_of_cells
from fastdd.report.record import Record
from fastdd.report.results import TITLES, notes, set_name
from fastdd.report.tiles import marks_of_real, real_tiles, side_by_side


def results(runs: Sequence[dict[str, Any]], baselines: list[dict[str, Any]], *, chart: bool) -> dict[str, Any]:
    """The table of results, its chart where there is something to compare, and what to know of them."""
    rows = [(set_name(row), row, True) for row in baselines]
    rows += [(_name_of_row(run, row, len(runs) > 1), row, False) for run in runs for row in run["rows"]]
    few = [f"{run['name']}: {line}" if len(runs) > 1 else line for run in runs for line in run["few"]]
    # Of cells that the page counts itself, there is no need of what the evaluation said of them.
    counted = [run["heat"].get("counted") for run in runs for _ in run["rows"]]
    told = [
        row | {"warnings": [line for line in row.get("warnings", ()) if not (known and line.startswith(FEW_IMAGES))]}
        for (_, row, _), known in zip(rows, [False] * len(baselines) + counted, strict=True)
    ]
    known = [metric for metric in METRICS if all(row[metric]["mean"] is not None for _, row, _ in rows)]
    of = [None] * len(baselines) + [number for number, run in enumerate(runs) for _ in run["rows"]]
    picture = ""
    if chart and len(rows) > 1 and known:
        bars = [
            (
                TITLES[metric],
                [(row[metric]["mean"], row[metric]["std"] if row["nets"] > 1 else None) for _, row, _ in rows],
            )
            for metric in known
        ]
        picture = charts.bars(bars, [name for name, _, _ in rows], y="%", limits=(0, 105), of=of)
    splits = {row.get("tested_on", "test") for _, row, _ in rows}
    tested = {("test",): "On the test set", ("validation",): "On held-out training images"}
    return {
        "results": rows,
        "result_chart": picture,
        "notes": [*notes(told), *few],
        "tested": tested.get(tuple(splits), "On the test set unless it says otherwise"),
        "spread": any(row["nets"] > 1 for _, row, _ in rows),
    }


def _name_of_row(run: dict[str, Any], row: dict[str, Any], several: bool) -> str:
    if not several and not run["title"]:
        return set_name(row)
    return f"{run['name']} on {row['trained']}" if "trained" in row else run["name"]


def advice(runs: Sequence[dict[str, Any]]) -> str:
    """How a baseline of these runs is made; empty where none was evaluated, they have several data sets or IPC, or no
    name tells their network."""
    rows = [run["rows"][-1] for run in runs if run["rows"] and run["history"] is None]
    alike = len({(row.get("dataset"), row["ipc"]) for row in rows}) == 1
    return command_for(rows[-1]) if alike and rows[-1].get("dataset") and rows[-1]["ipc"] else ""


def losses(runs: Sequence[dict[str, Any]]) -> str:
    losses = [(run["name"], run["losses"]) for run in runs if run["history"] is None]
    return charts.curves(losses, x="step", y="loss") if any(points for _, points in losses) else ""


def images(runs: Sequence[dict[str, Any]], dataset: Dataset | None, seed: int) -> dict[str, Any]:
    """Synthetic images of all runs by class, and real ones beside them."""
    sets = [run for run in runs if run["classes"]]
    real = real_tiles(dataset, seed) if dataset is not None and sets else {}
    told = [mark for run in sets for mark in run["marks"]]
    marks = dict.fromkeys([*(marks_of_real(dataset) if real else []), *told])
    heads = [run["name"] for run in sets] if len(runs) > 1 else ["synthetic"]
    return {
        "rows": side_by_side([run["classes"] for run in sets], real, by_number=bool(real)),
        "heads": [*heads, "real"] if real else heads,
        "real": bool(real),
        "marks": list(marks),
        "told": bool(told),
        "hidden": max((run["hidden"] for run in sets), default=0),
    }


def contents(shown: dict[str, Any]) -> list[tuple[str, str]]:
    """(id, title) of the page's parts."""
    runs, covered = shown["runs"], shown["covered"]
    parts = [
        ("results", "Results", runs),
        ("loss", "Loss", shown["losses"]),
        ("training", "Training", shown["training"]),
        ("course", "Accuracy over iterations", shown["course"]),
        ("covered", f"Class {covered.class_name}" if covered else "", covered),
        ("images", "Images", shown["images"]["rows"]),
    ]
    found = [(target, name) for target, name, there in parts if there]
    return found + [(f"run-{number}", run["name"]) for number, run in enumerate(runs, 1)]


def heat(record: Record, dataset: Dataset | None) -> dict[str, Any]:
    """Of the last result its cells, and what of WA and DEO rests on few images."""
    rows, groups, classes = record.rows_of_set, _group_names(record, dataset), _row_names(record, dataset)
    about: dict[str, Any] = {"groups": groups, "row_names": classes, "heat": {}, "few": []}
    if not rows:
        return about
    counted = images_of_cells(rows[-1], dataset)
    found = cells(rows[-1], counted)
    about["heat"] = {
        "cells": found,
        "nets": rows[-1]["nets"],
        "counted": counted is not None,
        "few": any(cell.few for line in found for cell in line),
        "least": LEAST,
    }
    return about | {"few": doubts_of_cells(rows[-1], counted, classes, groups)}


def _group_names(record: Record, dataset: Dataset | None) -> list[str]:
    if not record.rows_of_set:
        return []
    last = record.rows_of_set[-1]
    count = len(last["group_accuracy"][0])
    known = last.get("group_names")
    if isinstance(known, list) and len(known) == count:
        return known
    if dataset is not None and dataset.num_groups == count:
        return list(dataset.group_names)
    return [f"group {number}" for number in range(count)]


def _row_names(record: Record, dataset: Dataset | None) -> list[str]:
    """Of the classes of the last evaluation, whose order is that of the data set that it was on, not the set's."""
    if not record.rows_of_set:
        return []
    last = record.rows_of_set[-1]
    count = len(last["group_accuracy"])
    for known in (last.get("class_names"), dataset and dataset.class_names, _own_names(record)):
        if isinstance(known, list | tuple) and len(known) == count:
            return list(known)
    return [f"class {number}" for number in range(count)]


def _own_names(record: Record) -> list[str] | None:
    """The set's, where its classes have the order of the data set that it was made from: not of an imported one."""
    made = record.synthetic
    return None if made is None or "source" in made.metadata else made.metadata["class_names"]
