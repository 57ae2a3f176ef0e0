"""``fastdd evaluate --protocol ddranking``: the scores of a set, or of repeats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, report
from fastdd.cli.console import bar, console
from fastdd.cli.options import EVALUATION
from fastdd.cli.plan import show_plan
from fastdd.cli.repeats import digests
from fastdd.core import files, ranks
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import published_protocol

PROTOCOL = "ddranking"
Rates = Annotated[
    str | None,
    typer.Option(
        "--rates",
        help="Of protocol ddranking: learning rates to try, joined by commas.",
        show_default="0.001,0.005,0.01,0.05,0.1",
        metavar="RATE,...",
        rich_help_panel=EVALUATION,
    ),
]
WholeEpochs = Annotated[
    int | None,
    typer.Option(
        "--whole-epochs",
        help="Of protocol ddranking: epochs on the whole training set.",
        show_default="200, or --epochs if fewer",
        min=1,
        rich_help_panel=EVALUATION,
    ),
]
Compat = Annotated[
    bool,
    typer.Option(
        "--compat",
        help="Of protocol ddranking: also print the public package's figures: percentages, best rates and epochs of "
        "the test set.",
        rich_help_panel=EVALUATION,
    ),
]


def check_options(protocol: str | None, of_ranking: dict[str, Any], others: dict[str, Any]) -> None:
    """ValueError for options of this protocol without it, or of other protocols with it."""
    given = of_ranking if protocol != PROTOCOL else others
    for name, value in given.items():
        if value not in (None, False, []):
            where = f"for protocol {PROTOCOL}" if protocol != PROTOCOL else f"not for protocol {PROTOCOL}"
            raise ValueError(f"--{name} is {where}: leave it out" + (", or give that" if given is of_ranking else ""))


def parsed_rates(text: str | None) -> list[float] | None:
    """The value of ``--rates``.

    >>> parsed_rates("0.01,0.1")
    [0.01, 0.1]
    """
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"--rates must be learning rates joined by commas, not {text!r}") from None


def rank_sets(
    sets: dict[int | None, str],
    load: Any,
    data: Dataset,
    archs: Sequence[str | None],
    settings: dict[str, Any],
    deo: str,
    seed: int,
    json: Path | None,
    dry_run: bool,
) -> None:
    """Score sets, by the seed of their distillation (None for one that is no repeat), with every network.

    Args:
        load: a set, or ``random``, of a place.
        settings: of :func:`fastdd.rank` but for the network and the seed.
    """
    if dry_run:
        _show_plan(sets, load, data, archs, {**settings, "seed": seed})
        return
    everything = []
    for arch in archs:
        rows = []
        for number, place in sets.items():
            rows.append(_row(load(place), place, data, {**settings, "arch": arch, "seed": seed + (number or 0)}, deo))
        everything += rows
        _print(report.over_sets(rows) if len(rows) > 1 else rows[0], data, len(rows))
    ranks.first(lambda: json and report.write_json(json, report.document(everything, dataset_digest=data.digest())))
    console.print(f"protocol {PROTOCOL}: {published_protocol(PROTOCOL).note}")


def _row(what: SyntheticSet | str, place: str, data: Dataset, settings: dict[str, Any], deo: str) -> dict[str, Any]:
    """Of one set; added to its run's folder."""
    with bar(f"ranking on {data.name}") as update:
        found = api.rank(what, data, progress=update, **settings)
    about = {"method": place, "debias": "none", "ipc": settings["ipc"]}
    if isinstance(what, SyntheticSet):
        about = {name: what.metadata.get(name) for name in about}
    row = report.ranking_row(found, deo, dataset=data.name, **about, **digests(what, data))
    run = Path(place) if isinstance(what, SyntheticSet) and Path(place).is_dir() else None
    if run is not None:
        ranks.first(lambda: _add(row, run, data))
    return row


def _add(row: dict[str, Any], run: Path, data: Dataset) -> None:
    path = run / report.RANKING
    with files.alone_in(run):
        old = report.read_json(path)["rows"] if path.exists() else []
        report.write_json(path, report.document([*old, row], dataset_digest=data.digest()))


def _print(row: dict[str, Any], data: Dataset, sets: int) -> None:
    over = f"{sets} distillations" if sets > 1 else f"{row['rounds']} rounds"
    tables = [
        (report.reached_table, "last", "%"),
        (report.score_table, "last", "fractions"),
        (report.score_table, "best", "fractions"),
    ]
    for make, when, unit in tables:
        console.print(make(row, when, f"{data.name}, {row['arch']}, {over}, {unit}"))
    half = "half of the 95 % interval (Student's t) over " + ("distillations" if sets > 1 else "rounds")
    console.print(f"± {half}; of DEO, scores are of 1 - DEO; own labels: {row['labels']}" + _teacher(row))
    for line in report.compat_lines(row):
        console.print(f"as the public package prints it: {line}")


def _teacher(row: dict[str, Any]) -> str:
    return f", of random images by {row['teacher']}" if row.get("teacher") else ""


def _show_plan(
    sets: dict[int | None, str], load: Any, data: Dataset, archs: Sequence[str | None], settings: dict[str, Any]
) -> None:
    plan = api.planned_ranking(
        load(next(iter(sets.values()))), data, **{"width": None, "depth": None, **settings, "arch": archs[0]}
    )
    of_set = plan.of_set
    show_plan(
        f"fastdd evaluate would score on {data.name}, with",
        {
            "sets": len(sets),
            "networks": ", ".join(name or "the set's own" for name in archs),
            "rounds": of_set.nets,
            "trainings a round": plan.trainings,
            "own labels": plan.labels,
            "images": f"{len(of_set.labels):,} of the set, {plan.ipc} a class at random, {len(plan.data.train):,} in "
            f"all; {len(plan.data.validation):,} to choose by",
            "epochs": f"{of_set.protocol.epochs}, of the whole training set {plan.whole_epochs}",
            "dsa_strategy": of_set.protocol.dsa_strategy,
            "rates": ", ".join(map(str, plan.rates)),
            "of the set": ", ".join(map(str, plan.own_rates)),
        },
    )
    console.print("nothing was written (--dry-run)")
