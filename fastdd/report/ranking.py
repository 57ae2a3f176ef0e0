"""Scores of DD-Ranking as rows of JSON and as tables of 80 columns."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastdd.core import reading
from fastdd.core.text import shown
from fastdd.data import SyntheticSet
from fastdd.evaluation import METRICS
from fastdd.evaluation.ranking import Outcome, Ranking
from fastdd.evaluation.repeats import repeats
from fastdd.evaluation.scores import CELLS, SCORES
from fastdd.report.results import TITLES, read_json

if TYPE_CHECKING:
    from rich.table import Table

RANKING = "ranking.json"  # of a run's folder: every ranking of its set
_WHEN = {"last": "last epoch", "best": "best epoch on held-out images"}


def ranking_row(ranking: Ranking, deo: str = "range", **about: Any) -> dict[str, Any]:
    """For JSON: scores in fractions at the last and best epoch, what networks reached in percent, and every round."""
    compat = ranking.compat()
    return {
        **about,
        "protocol": "ddranking",
        "arch": ranking.arch,
        "rounds": len(ranking.rounds),
        "labels": ranking.labels,
        **({"teacher": ranking.teacher} if ranking.teacher else {}),
        "epochs": ranking.protocol.epochs,
        "whole_epochs": ranking.whole_epochs,
        "dsa_strategy": ranking.protocol.dsa_strategy,
        "rates": list(ranking.rates),
        "seed": ranking.seed,
        "deo": deo,
        "tested_on": ranking.tested_on,
        "held_out": ranking.held_out,
        "seconds": ranking.seconds,
        **{when: ranking.summary(when, deo) for when in ("last", "best")},
        "reached": {when: ranking.reached(when, deo) for when in ("last", "best")},
        **({} if compat is None else {"compat": compat}),
        "by_round": [{cell: _of_outcome(outcome) for cell, outcome in one.items()} for one in ranking.rounds],
    }


def _of_outcome(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {
        when: {"rate": one.rate, "epoch": one.epoch, "accuracy": one.counts.metrics().accuracy}
        for when, one in (("last", outcome.last), ("best", outcome.best))
    }
    return found if outcome.by_test is None else {**found, "by_test": outcome.by_test}


def over_sets(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row of several distillations': the mean over sets of the means over rounds, whose interval is over sets.

    Scores are ``{"mean", "std", "interval"}``: the deviation of :func:`fastdd.evaluation.repeats.repeats`, over all
    rounds of all sets.
    """
    rounds = rows[0]["rounds"]

    def over(parts: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
        if any(part["mean"] is None for part in parts):
            return dict.fromkeys(("mean", "std", "interval"))
        found = repeats([part["mean"] for part in parts], [part["std"] for part in parts], rounds)
        return {"mean": found.mean, "std": found.std, "interval": found.interval}

    result = {
        name: value for name, value in rows[0].items() if name not in ("by_round", "seed", "set_digest", "compat")
    }
    for when in _WHEN:
        result[when] = {
            name: {score: over([row[when][name][score] for row in rows]) for score in SCORES} for name in METRICS
        }
        result["reached"] = result["reached"] | {
            when: {
                cell: {name: over([row["reached"][when][cell][name] for row in rows]) for name in METRICS}
                for cell in CELLS
            }
        }
    seconds = sum(row["seconds"] for row in rows)
    return {**result, "rounds": rounds * len(rows), "distillations": len(rows), "seconds": seconds}


def read_ranking(path: str | os.PathLike, synthetic: SyntheticSet) -> dict[str, Any] | None:
    """The last ranking of this set in a run's file; None where there is none of it.

    Raises:
        ValueError: naming the file: it holds none.
    """
    rows = [row for row in read_json(path)["rows"] if row.get("set_digest") == synthetic.digest()]
    if not rows:
        return None
    for when in _WHEN:
        for name in METRICS:
            for score in SCORES:
                of_when = rows[-1].get(when)
                of_figure = of_when.get(name) if isinstance(of_when, dict) else None
                found = of_figure.get(score) if isinstance(of_figure, dict) else None
                values = [found.get(key, "") for key in ("mean", "interval")] if isinstance(found, dict) else [""]
                if not all(value is None or reading.is_number(value) for value in values):
                    raise ValueError(f"{path} is damaged: {when} {name} {score} is {shown(found)}, not a figure")
    return rows[-1]


def score_lines(row: Mapping[str, Any], when: str) -> tuple[list[str], list[list[str]]]:
    """Titles of columns, and a line a figure that the test set defines, with intervals where there are any."""
    lines = [
        [TITLES[name], *(_cell(row[when][name][score], 3) for score in SCORES)]
        for name in METRICS
        if row[when][name]["hlr"]["mean"] is not None
    ]
    return ["figure", *(score.upper() for score in SCORES)], lines


def ranking_tables(row: Mapping[str, Any] | None) -> list[tuple[str, list[str], list[list[str]]]]:
    """For the report page: title, titles of columns, lines."""
    return [] if row is None else [(f"Scores, {words}", *score_lines(row, when)) for when, words in _WHEN.items()]


def score_table(row: Mapping[str, Any], when: str, title: str) -> "Table":
    """:func:`score_lines` for the terminal, in fractions."""
    from rich.table import Table

    header, lines = score_lines(row, when)
    result = Table(title=f"{title}, {_WHEN[when]}", title_justify="left")
    for name in header:
        result.add_column(name, justify="left" if name == header[0] else "right", no_wrap=True)
    for line in lines:
        result.add_row(*line)
    return result


def reached_table(row: Mapping[str, Any], when: str, title: str) -> "Table":
    """What networks on each of the sets reach, in percent."""
    from rich.table import Table

    result = Table(title=f"{title}, {_WHEN[when]}", title_justify="left")
    result.add_column("networks on", no_wrap=True)
    names = [name for name in METRICS if row["reached"][when]["real"][name]["mean"] is not None]
    for name in names:
        result.add_column(TITLES[name], justify="right", no_wrap=True)
    for cell in CELLS:
        if cell != "own" or row["labels"] != "hard":
            result.add_row(cell, *(_cell(row["reached"][when][cell][name], 1) for name in names))
    return result


def compat_lines(row: Mapping[str, Any]) -> list[str]:
    """As the public package logs: percentages, mean and deviation over rounds."""
    found = row.get("compat")
    if found is None:
        return []
    names = {
        "hlr": "hard-label recovery",
        "ior": "improvement over random",
        "lrs": "label-robust score",
        "ars": "augmentation-robust score",
    }
    return [f"{name}: mean {found[key]['mean']:.2f} %, std {found[key]['std']:.2f}" for key, name in names.items()]


def _cell(figure: Mapping[str, float | None], digits: int) -> str:
    if figure["mean"] is None:
        return "-"
    half = figure["interval"]
    return f"{figure['mean']:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")
