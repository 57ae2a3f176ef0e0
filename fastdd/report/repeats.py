"""Results of repeated distillations: rows of one kind by seed become one row; two kinds become a paired difference."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastdd.evaluation import METRICS
from fastdd.evaluation.repeats import paired, repeats
from fastdd.report import charts
from fastdd.report.results import TITLES, network, set_name

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]
WHAT_COVERS = (
    "± half of the 95 % interval (Student's t) over distillations, which covers what another seed changes, of the "
    "distillation and of the networks"
)
# What rows of one kind may differ in.
_OF_ONE = ("seed", "seconds", "warnings", "group_accuracy", "group_images", "set_digest", "epoch", *METRICS)
# What sets may have of their own: the rate that those of trajectory matching have learned, a teacher of their seed.
_OWN = ("learning_rate", "teacher_digest")


def over_distillations(rows: Mapping[int, Row]) -> Row:
    """One row of those of several distillations, by seed, that are alike but for it.

    Figures are ``{"mean", "std", "interval", "between", "within"}`` (:class:`fastdd.evaluation.repeats.Repeats`): the
    interval is over distillations. ``nets`` are all networks, ``distillations`` their sets, ``seeds`` theirs; there is
    no ``seed``, and no ``learning_rate`` or ``teacher_digest`` where every set has its own. ``seconds`` are the sum,
    ``warnings`` all, ``group_accuracy`` the mean. Rows of networks that were trained without a set
    (:func:`fastdd.report.network_row`) are repeats likewise, a network each; there is no ``epoch``.

    Raises:
        ValueError: rows of different kinds.
    """
    several = list(rows.values())
    for row in several[1:]:
        different = sorted(
            name for name in {*row, *several[0]} - {*_OF_ONE, *_OWN} if row.get(name) != several[0].get(name)
        )
        if different:
            name = different[0]
            raise ValueError(
                f"results of different {name} are no repeats: {several[0].get(name)!r} and {row.get(name)!r}"
            )
    result = {
        name: value for name, value in several[0].items() if name not in ("seed", "set_digest", "warnings", "epoch")
    }
    nets = several[0]["nets"]
    for metric in METRICS:
        figures = [row[metric] for row in several]
        result[metric] = dict.fromkeys(("mean", "std", "interval", "between", "within"))
        if all(figure["mean"] is not None for figure in figures):
            result[metric] = asdict(
                repeats([figure["mean"] for figure in figures], [figure["std"] for figure in figures], nets)
            )
    told = {f"seed {seed}: {line}": None for seed, row in rows.items() for line in row.get("warnings", ())}
    result |= {name: None for name in _OWN if len({row.get(name) for row in several}) > 1}
    return {
        **result,
        "nets": nets * len(several),
        "seconds": sum(row["seconds"] for row in several),
        "distillations": len(several),
        "seeds": list(rows),
        **({"warnings": list(told)} if told else {}),
        "group_accuracy": _mean([row["group_accuracy"] for row in several]),
    }


def _mean(matrices: Sequence[list[list[float | None]]]) -> list[list[float | None]]:
    cells = [list(zip(*rows, strict=True)) for rows in zip(*matrices, strict=True)]
    return [[None if None in cell else sum(cell) / len(cell) for cell in row] for row in cells]


def kinds(rows: Mapping[int, Sequence[Row]]) -> list[dict[int, Row]]:
    """Rows of several runs, by seed, put together by kind; of a run the last of a kind, kinds in their order.

    Rows that no other run has the like of are put together by all but what a set may have of its own.
    """
    seeds: dict[str, set[int]] = {}
    for seed, of_run in rows.items():
        for row in of_run:
            seeds.setdefault(_about(row, _OF_ONE), set()).add(seed)
    found: dict[str, dict[int, Row]] = {}
    for seed, of_run in rows.items():
        for row in of_run:
            about = _about(row, _OF_ONE)
            kind = about if len(seeds[about]) > 1 else _about(row, (*_OF_ONE, *_OWN))
            found.setdefault(kind, {})[seed] = row
    return list(found.values())


def _about(row: Row, ignored: Sequence[str]) -> str:
    return json.dumps({name: value for name, value in row.items() if name not in ignored}, sort_keys=True)


def paired_difference(ours: Mapping[int, Row], others: Mapping[int, Row]) -> dict[str, dict[str, float | None]]:
    """By metric, the mean of the differences at equal seeds and half of its 95 % interval, in points of percent.

    Raises:
        ValueError: no seed that both have.
    """
    seeds = [seed for seed in ours if seed in others]
    if not seeds:
        raise ValueError(f"no equal seeds: {_words(ours)} and {_words(others)}")
    result: dict[str, dict[str, float | None]] = {}
    for metric in METRICS:
        pairs = [(ours[seed][metric]["mean"], others[seed][metric]["mean"]) for seed in seeds]
        result[metric] = {"mean": None, "interval": None}
        if not any(None in pair for pair in pairs):
            mean, half = paired(*zip(*pairs, strict=True))
            result[metric] = {"mean": mean, "interval": half}
    return result


def _words(seeds: Mapping[int, Any]) -> str:
    return ", ".join(map(str, seeds))


def figure_text(figure: Mapping[str, float | None], sign: str = "") -> str:
    """
    >>> figure_text({"mean": 3.0, "interval": 1.25}, "+"), figure_text({"mean": None, "interval": None})
    ('+3.0 ± 1.2', '-')
    """
    if figure["mean"] is None:
        return "-"
    return f"{figure['mean']:{sign}.1f}" + ("" if figure["interval"] is None else f" ± {figure['interval']:.1f}")


def repeats_lines(several: Sequence[Mapping[int, Row]], metrics: Sequence[str] = METRICS) -> list[list[str]]:
    """Of every kind its set, seeds, figures with their interval and where they vary; then paired differences.

    Differences are those of every later kind and the first one of the same network with as many of its seeds.
    """
    lines = []
    for rows in several:
        row = over_distillations(rows)
        nets = f"{len(rows)} x {row['nets'] // len(rows)} {network(row)}"
        lines.append([set_name(row), nets, *(figure_text(row[metric]) for metric in metrics)])
        for part in ("between", "within"):
            deviations = [row[metric][part] for metric in metrics]
            if any(value is not None for value in deviations):
                shown = ("-" if value is None else f"{value:.1f}" for value in deviations)
                lines.append([f"  sd {part} distillations", "", *shown])
    for number, rows in enumerate(several):
        first = next((other for other in several[:number] if _comparable(rows, other)), None)
        if first is not None:
            ours, other = (next(iter(one.values())) for one in (rows, first))
            count = f"{len(rows.keys() & first.keys())} pairs of {ours['nets']} {network(ours)}"
            found = paired_difference(rows, first)
            name = f"{set_name(ours)} less {set_name(other)}"
            lines.append([name, count, *(figure_text(found[metric], "+") for metric in metrics)])
    return lines


def _comparable(ours: Mapping[int, Row], others: Mapping[int, Row]) -> bool:
    """Whether two kinds are of the same data, networks and training, and of seeds that both have."""
    seed = next((seed for seed in ours if seed in others), None)
    if seed is None:
        return False
    one, other = ours[seed], others[seed]
    of_set = (*_OF_ONE, "learning_rate", "method", "debias")
    alike = all(one.get(name) == other.get(name) for name in {*one, *other} - {*of_set})
    return alike and set_name(one) != set_name(other)


def repeats_bars(several: Sequence[Mapping[int, Row]], metrics: Sequence[str] = METRICS) -> str:
    """A chart as SVG: of every metric that all kinds have a bar a kind, with its interval; empty where they have none.

    Kinds of one set are told apart by their networks.
    """
    found = [over_distillations(rows) for rows in several]
    known = [name for name in metrics if all(row[name]["mean"] is not None for row in found)]
    if not known:
        return ""
    groups = [(TITLES[name], [(row[name]["mean"], row[name]["interval"]) for row in found]) for name in known]
    sets = [set_name(row) for row in found]
    names = [
        f"{name}, {row['nets'] // row['distillations']} {network(row)}" if sets.count(name) > 1 else name
        for name, row in zip(sets, found, strict=True)
    ]
    return charts.bars(groups, names, y="%", limits=(0, 100))


def repeats_header(metrics: Sequence[str] = METRICS) -> list[str]:
    """Titles of the columns of :func:`repeats_lines`."""
    return ["set", "sets x networks", *(TITLES[metric] for metric in metrics)]


def repeats_table(
    several: Sequence[Mapping[int, Row]], title: str | None = None, metrics: Sequence[str] = METRICS
) -> "Table":
    """:func:`repeats_lines` as a rich table."""
    from rich.table import Table

    result = Table(title=title, title_justify="left")
    for number, name in enumerate(repeats_header(metrics)):
        result.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for line in repeats_lines(several, metrics):
        result.add_row(*line)
    return result
