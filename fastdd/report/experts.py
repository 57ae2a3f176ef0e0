"""What expert trajectories are worth: accuracy and fairness of the experts on the test set."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdd.evaluation import METRICS

if TYPE_CHECKING:
    from rich.table import Table

_FIGURES = {"loss": "loss", "accuracy": "accuracy", "deo_m": "DEO_M", "deo_a": "DEO_A", "wa": "WA", "ba": "BA"}


def expert_rows(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row an evaluated epoch: mean and standard deviation over experts, metrics in percent.

    ``{"epoch", "experts", "loss": {"mean", "std"}, "accuracy": ..., "deo_m": ..., "deo_a": ..., "wa": ...,
    "ba": ...}``; the loss is that of training; None where the test set does not define a figure.
    """
    rows = []
    for same_epoch in zip(*(entry["evaluations"] for entry in manifest["experts"]), strict=True):
        row: dict[str, Any] = {"epoch": same_epoch[0]["epoch"], "experts": len(same_epoch)}
        for name in ("loss", *METRICS):
            values = [evaluation[name] for evaluation in same_epoch]
            known = None not in values
            row[name] = {
                "mean": float(np.mean(values)) if known else None,
                "std": float(np.std(values)) if known else None,
            }
        rows.append(row)
    return rows


def expert_summary(rows: list[dict[str, Any]], title: str | None = None) -> "Table":
    """Rows of :func:`expert_rows` as a rich table."""
    from rich.table import Table

    result = Table(title=title, title_justify="left")
    result.add_column("epoch", justify="right")
    for name in _FIGURES.values():
        result.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        digits = {"loss": 3}
        cells = [
            "-" if row[name]["mean"] is None else f"{row[name]['mean']:.{n}f} ± {row[name]['std']:.{n}f}"
            for name, n in ((name, digits.get(name, 1)) for name in _FIGURES)
        ]
        result.add_row(str(row["epoch"]), *cells)
    return result


def expert_table(manifest: Mapping[str, Any], title: str | None = None) -> "Table":
    """Every expert at its last evaluation."""
    from rich.table import Table

    result = Table(title=title, title_justify="left")
    for name in ("expert", "epoch", *_FIGURES.values(), "seconds"):
        result.add_column(name, justify="right", no_wrap=True)
    for number, entry in enumerate(manifest["experts"]):
        last = entry["evaluations"][-1] if entry["evaluations"] else {}
        cells = ["-" if last.get(name) is None else f"{last[name]:.{3 if name == 'loss' else 1}f}" for name in _FIGURES]
        seconds = "-" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
        result.add_row(str(number), str(last.get("epoch", "-")), *cells, seconds)
    return result
