"""Results of evaluations: made under a bar, printed as a table, kept in a run's folder and in a JSON file."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastdd import api, report
from fastdd.cli.console import bar, console
from fastdd.core import files
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import METRICS, DoubtfulFigures, Evaluation


def evaluate_with_bar(what: SyntheticSet | str, data: Dataset, title: str, **settings: Any) -> Evaluation:
    """:func:`fastdd.evaluate` under a progress bar."""
    with bar(title) as update:

        def progress(done: int, total: int, accuracy: float) -> None:
            update(done, total, f"networks, accuracy {accuracy:.1f} so far")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DoubtfulFigures)  # the notes of the table are theirs
            return api.evaluate(what, data, progress=progress, **settings)


def print_results(rows: Sequence[dict[str, Any]], title: str | None = None, metrics: Sequence[str] = METRICS) -> None:
    """A table of the figures of ``metrics``, and below it what may be wrong with them."""
    console.print(report.table(rows, title, metrics))
    for note in report.notes(rows):
        console.print(f"warning: {note}")


def named(row: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """The row with the names of the data set's classes and groups, as a set may number its classes otherwise."""
    return {**row, "class_names": list(data.class_names), "group_names": list(data.group_names)}


def add_results(rows: list[dict[str, Any]], data: Dataset, run: Path | None, json: Path | None) -> None:
    """Add results to those that a run's folder has, and write them to ``json``; with the data set's names."""
    rows = [named(row, data) for row in rows]
    if run is not None:
        path = run / report.RESULT
        with files.alone_in(run):  # evaluations may end together
            old = report.read_results(path)["rows"] if path.exists() else []
            report.write_json(path, report.document([*old, *rows], dataset_digest=data.digest()))
    if json is not None:
        report.write_json(json, report.document(rows, dataset_digest=data.digest()))
