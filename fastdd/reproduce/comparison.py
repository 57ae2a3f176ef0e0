"""Ours beside the published figures, with the difference and how sure it is."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastdd.evaluation.metrics import difference_interval
from fastdd.report.repeats import figure_text, over_distillations, paired_difference
from fastdd.reproduce.recipes import Cell, Difference, Mean, Published, Table, covers
from fastdd.reproduce.work import Outcome

_ONE_SEED = (
    "Percent: ours ± half of the 95 % interval of the mean over networks (published, difference). What another seed of "
    "the distillation would change is not in the interval."
)
_SEVERAL = (
    "Percent: ours ± half of the 95 % interval (Student's t) of the mean over {count} distillations, seeds {seeds}, of "
    "the mean over networks (published, difference); it covers what another seed changes, of the distillation and of "
    "the networks.{whole}{paired}"
)
_SEVERAL_TRAINED = (
    "Percent: ours ± half of the 95 % interval (Student's t) of the mean over {count} trained networks, seeds {seeds} "
    "(published, difference).{paired}"
)
_WHOLE = " Of whole training sets it is over networks."
_PAIRED = " A line of one set less another has the mean difference at equal seeds and its interval."
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
        interval: half the width of the 95 % interval of our mean (Student's t), or of a difference of two (Welch's):
            over distillations, or trained networks, where there are several, and else over networks, without what
            another distillation would change; None for one, and for a mean over rows.
        published: None where the paper has none that can be read.
        published_std: None where the paper gives none.
        distillations: sets, with a seed each.
        between: standard deviation of what another distillation changes, within: of networks on a set
            (:class:`fastdd.evaluation.repeats.Repeats`); None for a single distillation.
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
    distillations: int = 1
    between: float | None = None
    within: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours less the published."""
        return None if self.ours is None or self.published is None else self.ours - self.published


@dataclass(frozen=True)
class PairedDifference:
    """A figure of what is handled for bias less that of what is not, but is else the same, at equal seeds.

    Attributes:
        row, column, other, figure: of what: ``column`` less ``other``.
        mean: of the differences, in points of percent; None where the test set does not define the figure.
        interval: half of its 95 % interval (Student's t).
        pairs: seeds.
    """

    row: str
    column: str
    other: str
    figure: str
    mean: float | None
    interval: float | None
    pairs: int


def explanation(outcomes: Sequence[Outcome]) -> str:
    """What the figures of :func:`lines` are, and what their intervals cover."""
    seeds = sorted({outcome.seed for outcome in outcomes})
    if len(seeds) < 2:
        return _ONE_SEED
    kinds = {outcome.cell.what for outcome in outcomes}
    text = _SEVERAL_TRAINED if kinds == {"train"} else _SEVERAL
    whole = _WHOLE if "whole" in kinds else ""
    return text.format(count=len(seeds), seeds=", ".join(map(str, seeds)), whole=whole, paired=_PAIRED)


def _by_cell(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], dict[int, Outcome]]:
    found: dict[tuple[str, str], dict[int, Outcome]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.cell.row, outcome.cell.column), {})[outcome.seed] = outcome
    return found


def comparisons(table: Table, outcomes: Sequence[Outcome]) -> list[Comparison]:
    """One a figure of every cell that is done, in the table's order, then of means and differences of such cells.

    Outcomes of a cell with several seeds are one comparison.
    """
    by_seed = {place: {seed: outcome.row for seed, outcome in of.items()} for place, of in _by_cell(outcomes).items()}
    published = {(outcome.cell.row, outcome.cell.column): outcome.cell.published for outcome in outcomes}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    found = []
    for place, several in by_seed.items():
        (first, *_) = several.values()
        rows[place] = row = first if len(several) == 1 else over_distillations(several)
        for figure in table.figures:
            ours, theirs = row[figure], _published(published[place].get(figure))
            own = ours["mean"], ours["std"], row["nets"], ours["interval"]
            spread = len(several), ours.get("between"), ours.get("within")
            found.append(Comparison(*place, figure, *own, *theirs, *spread))
    for mean in table.means:
        cells = [cell for cell in table.cells if covers(mean, cell)]
        done = [rows[cell.row, cell.column] for cell in cells if (cell.row, cell.column) in rows]
        if len(done) == len(cells):
            found += [_mean(mean, figure, done) for figure in table.figures]
    for one in table.differences:
        pair = [by_seed.get((row, one.column)) for row in (one.of, one.less)]
        if None not in pair:
            found += [_difference(one, figure, *pair) for figure in table.figures]
    return found


def paired_differences(table: Table, outcomes: Sequence[Outcome]) -> list[PairedDifference]:
    """Of every set that is handled for bias and the plain one of its row and method, where both have two seeds.

    Likewise of every network that learns from generated images and the one that does not, of the same recipe.
    """
    cells, found = _by_cell(outcomes), []
    for (row, column), ours in cells.items():
        other = _plain(ours, {name: of for (place, name), of in cells.items() if place == row})
        if other is None:
            continue
        pairs = [{seed: of[seed].row for seed in ours if seed in cells[row, other]} for of in (ours, cells[row, other])]
        if len(pairs[0]) < 2:
            continue
        less = paired_difference(*pairs)
        found += [
            PairedDifference(row, column, other, figure, less[figure]["mean"], less[figure]["interval"], len(pairs[0]))
            for figure in table.figures
        ]
    return found


def _plain(ours: dict[int, Outcome], of_row: dict[str, dict[int, Outcome]]) -> str | None:
    """The column that is the same without a debias mode, or without generated images; None where there is none."""
    (cell, *_) = (outcome.cell for outcome in ours.values())
    if not _handled(cell):
        return None
    for column, others in of_row.items():
        (other, *_) = (outcome.cell for outcome in others.values())
        if not _handled(other) and _but_for_bias(other) == _but_for_bias(cell):
            return column
    return None


def _handled(cell: Cell) -> bool:
    return cell.debias != "none" or cell.settings.get("use", "none") != "none"


def _but_for_bias(cell: Cell) -> tuple[Any, ...]:
    """What two cells have in common that differ in how bias is handled."""
    training = {name: value for name, value in cell.settings.items() if name not in ("use", "scale")}
    settings = training if cell.what == "train" else None
    return cell.what, cell.method, cell.evaluation, cell.networks, cell.experts, settings


def _published(figure: Published) -> tuple[float | None, float | None]:
    """Mean and standard deviation, as far as they are published."""
    return figure if isinstance(figure, tuple) else (figure, None)


def _mean(mean: Mean, figure: str, rows: list[dict[str, Any]]) -> Comparison:
    ours = [row[figure]["mean"] for row in rows]
    defined = None if None in ours else sum(ours) / len(ours)
    nets = sum(row["nets"] for row in rows)
    return Comparison(mean.row, mean.column, figure, defined, None, nets, None, *_published(mean.published[figure]))


def _difference(
    one: Difference, figure: str, of: Mapping[int, dict[str, Any]], less: Mapping[int, dict[str, Any]]
) -> Comparison:
    """Of two rows of the table, each with a result a seed."""
    spreads = [_spread(rows, figure) for rows in (of, less)]
    defined = None not in spreads
    return Comparison(
        one.row,
        one.column,
        figure,
        spreads[0][0] - spreads[1][0] if defined else None,
        None,
        sum(row["nets"] for rows in (of, less) for row in rows.values()),
        difference_interval(*spreads[0][1:], *spreads[1][1:]) if defined else None,
        *_published(one.published[figure]),
        min(len(of), len(less)),
    )


def _spread(rows: Mapping[int, dict[str, Any]], figure: str) -> tuple[float, float, int] | None:
    """Mean, deviation and number of results by seed, or, of a single one, of its networks; None where not defined."""
    figures = [row[figure] for row in rows.values()]
    means = [each["mean"] for each in figures]
    if None in means:
        return None
    (first, *others) = rows.values()
    if not others:
        return means[0], figures[0]["std"], first["nets"]
    return statistics.fmean(means), statistics.pstdev(means), len(means)


def number(value: float | None, figure: str, sign: str = "") -> str:
    """A figure, percent, with as many digits as it needs.

    >>> number(0.1667, "condensed"), number(0.1667, "accuracy"), number(None, "wa")
    ('0.167', '0.2', '-')
    """
    return "-" if value is None else f"{value:{sign}.{_DIGITS.get(figure, 1)}f}"


def header(table: Table) -> list[str]:
    """Titles of the columns of :func:`lines`."""
    return ["row", "set", *(TITLES[name] for name in table.figures)]


def lines(table: Table, found: Sequence[Comparison], less: Sequence[PairedDifference] = ()) -> list[list[str]]:
    """Cells of a printed table: a line a row and column, and in it ``ours ± interval (published, difference)``.

    Then a line for every pair of :func:`paired_differences`.
    """
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
    for one in less:
        name = f"{one.column} less {one.other}"
        cells.setdefault((one.row, name), []).append(figure_text({"mean": one.mean, "interval": one.interval}, "+"))
    return [[*names, *figures] for names, figures in cells.items()]


def markdown(table: Table, outcomes: Sequence[Outcome], note: str) -> str:
    """The comparison as a Markdown page."""
    found, less = comparisons(table, outcomes), paired_differences(table, outcomes)
    titles = header(table)
    text = [
        f"# {table.paper} {table.name}: {table.title}",
        "",
        note,
        "",
        explanation(outcomes),
        "",
        "| " + " | ".join(titles) + " |",
        "|" + "|".join("---" if n < 2 else "--:" for n in range(len(titles))) + "|",
    ]
    text += ["| " + " | ".join(line) + " |" for line in lines(table, found, less)]
    return "\n".join(text) + "\n"


def csv_text(table: Table, outcomes: Sequence[Outcome]) -> str:
    """The comparison as CSV, one line a figure; empty where there is none. Differences of sets have a mean in ``ours``,
    its interval, and their pairs in ``distillations``."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ["ours", "std", "nets", "interval_95", "published", "published_std", "difference"]
    names += ["distillations", "between", "within"]
    writer.writerow(["paper", "table", "row", "column", "figure", *names])
    for one in comparisons(table, outcomes):
        figures = [one.ours, one.std, one.nets, one.interval, one.published, one.published_std, one.difference]
        figures += [one.distillations, one.between, one.within]
        writer.writerow([table.paper, table.name, one.row, one.column, one.figure, *map(_csv_number, figures)])
    for one in paired_differences(table, outcomes):
        figures = [one.mean, None, None, one.interval, None, None, None, one.pairs, None, None]
        name = f"{one.column} less {one.other}"
        writer.writerow([table.paper, table.name, one.row, name, one.figure, *map(_csv_number, figures)])
    return file.getvalue()


def _csv_number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
