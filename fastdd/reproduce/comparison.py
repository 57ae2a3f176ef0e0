"""Ours beside the published figures, with the difference and how sure it is."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastdd.evaluation.metrics import difference_interval
from fastdd.reproduce.recipes import Difference, Mean, Published, Table, covers
from fastdd.reproduce.work import Outcome

EXPLANATION = (
    "Percent: ours ± half of the 95 % interval of the mean over networks (published, difference). What another seed of "
    "the distillation would change is not in the interval."
)
TITLES = {
    "accuracy": "accuracy",
    "deo_m": "DEO_M",
    "deo_a": "DEO_A",
    "wa": "WA",
    "ba": "BA",
    "condensed": "condensed ratio",
    "aligned": "bias-aligned",
}
_DIGITS = {"condensed": 3}


@dataclass(frozen=True)
class Comparison:
    """One figure of one cell, in percent.

    Attributes:
        row, column, figure: which.
        ours: mean over networks; None where the test set does not define it.
        std: over networks, divided by their number, as published figures have it; None of a mean over rows and of a
            difference.
        nets: networks.
        interval: half the width of the 95 % interval of our mean over networks (Student's t), or of a difference of two
            (Welch's); None for one network, and for a mean over rows. What another distillation, with another seed,
            would change is not in it.
        published: None where the paper has none that can be read.
        published_std: None where the paper gives none.
    """

    row: str
    column: str
    figure: str
    ours: float | None
    std: float | None
    nets: int
    interval: float | None
    published: float | None
    published_std: float | None

    @property
    def difference(self) -> float | None:
        """Ours less the published."""
        return None if self.ours is None or self.published is None else self.ours - self.published


def comparisons(table: Table, outcomes: Sequence[Outcome]) -> list[Comparison]:
    """One a figure of every cell that is done, in the table's order, then of means and differences of such cells."""
    found = []
    for outcome in outcomes:
        for figure in table.figures:
            ours, published = outcome.row[figure], _published(outcome.cell.published.get(figure))
            own = ours["mean"], ours["std"], outcome.row["nets"], ours["interval"]
            found.append(Comparison(outcome.cell.row, outcome.cell.column, figure, *own, *published))
    for mean in table.means:
        rows = [outcome.row for outcome in outcomes if covers(mean, outcome.cell)]
        if len(rows) == sum(covers(mean, cell) for cell in table.cells):
            found += [_mean(mean, figure, rows) for figure in table.figures]
    done = {(outcome.cell.row, outcome.cell.column): outcome.row for outcome in outcomes}
    for one in table.differences:
        pair = [done.get((row, one.column)) for row in (one.of, one.less)]
        if None not in pair:
            found += [_difference(one, figure, *pair) for figure in table.figures]
    return found


def _published(figure: Published) -> tuple[float | None, float | None]:
    """Mean and standard deviation, as far as they are published."""
    return figure if isinstance(figure, tuple) else (figure, None)


def _mean(mean: Mean, figure: str, rows: list[dict[str, Any]]) -> Comparison:
    ours = [row[figure]["mean"] for row in rows]
    defined = None if None in ours else sum(ours) / len(ours)
    nets = sum(row["nets"] for row in rows)
    return Comparison(mean.row, mean.column, figure, defined, None, nets, None, *_published(mean.published[figure]))


def _difference(one: Difference, figure: str, row: dict[str, Any], less: dict[str, Any]) -> Comparison:
    ours = [each[figure]["mean"] for each in (row, less)]
    spread = [value for each in (row, less) for value in (each[figure]["std"], each["nets"])]
    defined = None not in ours
    return Comparison(
        one.row,
        one.column,
        figure,
        ours[0] - ours[1] if defined else None,
        None,
        row["nets"] + less["nets"],
        difference_interval(*spread) if defined else None,
        *_published(one.published[figure]),
    )


def number(value: float | None, figure: str, sign: str = "") -> str:
    """A figure, percent, with as many digits as it needs.

    >>> number(0.1667, "condensed"), number(0.1667, "accuracy"), number(None, "wa")
    ('0.167', '0.2', '-')
    """
    return "-" if value is None else f"{value:{sign}.{_DIGITS.get(figure, 1)}f}"


def header(table: Table) -> list[str]:
    """Titles of the columns of :func:`lines`."""
    return ["row", "set", *(TITLES[name] for name in table.figures)]


def lines(table: Table, found: Sequence[Comparison]) -> list[list[str]]:
    """Cells of a printed table: a line a row and column, and in it ``ours ± interval (published, difference)``."""
    cells: dict[tuple[str, str], list[str]] = {}
    for one in found:
        values = one.ours, one.published, one.difference
        ours, published, more = (
            number(value, one.figure, sign) for value, sign in zip(values, ("", "", "+"), strict=True)
        )
        ours += "" if one.interval is None else f" ± {one.interval:.1f}"
        published += "" if one.published_std is None else f" ± {one.published_std:.1f}"
        rest = "" if one.published is None else f" ({published}, {more})"
        cells.setdefault((one.row, one.column), []).append(ours + rest)
    return [[*names, *figures] for names, figures in cells.items()]


def markdown(table: Table, found: Sequence[Comparison], note: str) -> str:
    """The comparison as a Markdown page."""
    titles = header(table)
    text = [
        f"# {table.paper} {table.name}: {table.title}",
        "",
        note,
        "",
        EXPLANATION,
        "",
        "| " + " | ".join(titles) + " |",
        "|" + "|".join("---" if n < 2 else "--:" for n in range(len(titles))) + "|",
    ]
    text += ["| " + " | ".join(line) + " |" for line in lines(table, found)]
    return "\n".join(text) + "\n"


def csv_text(table: Table, found: Sequence[Comparison]) -> str:
    """The comparison as CSV, one line a figure; empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ["ours", "std", "nets", "interval_95", "published", "published_std", "difference"]
    writer.writerow(["paper", "table", "row", "column", "figure", *names])
    for one in found:
        figures = [one.ours, one.std, one.nets, one.interval, one.published, one.published_std, one.difference]
        writer.writerow(
            [table.paper, table.name, one.row, one.column, one.figure]
            + ["" if value is None else f"{value:.6g}" for value in figures]
        )
    return file.getvalue()
