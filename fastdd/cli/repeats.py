"""Commands on several seeds: which, what was measured already, and the table over distillations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, report
from fastdd.cli.console import console
from fastdd.core import files
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import METRICS
from fastdd.report import repeats
from fastdd.session.repeats import finished, parse_seeds, runs_of

SeedsText = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        help="Several distillations: how many (seeds 0, 1, ...), or their seeds joined by commas; in place of --seed.",
        show_default=False,
        metavar="N|LIST",
    ),
]


def targets(target: str, seeds: str | None) -> dict[int | None, str]:
    """What ``fastdd evaluate`` evaluates, by the seed of its distillation; None for a set that is no repeat."""
    wanted, runs = None if seeds is None else parse_seeds(seeds), runs_of(target)
    if runs:
        return {seed: str(run) for seed, run in finished(runs, target, wanted).items()}
    if wanted is None:
        return {None: target}
    if target != "random":
        raise ValueError(f"--seeds is for random and for a folder of repeats (fastdd distill --seeds), not {target}")
    return dict.fromkeys(wanted, target)


def digests(what: SyntheticSet | str, data: Dataset) -> dict[str, str]:
    """Of what is evaluated and on what; sets that are made of the data set have no digest of their own."""
    own = {"set_digest": what.digest()} if isinstance(what, SyntheticSet) else {}
    return {**own, "dataset_digest": data.digest()}


def measured(run: Path | None, what: SyntheticSet | str, data: Dataset, about: dict, how: dict) -> dict | None:
    """The row that the run's folder has of exactly this evaluation; None where there is none.

    Args:
        about: of :func:`fastdd.report.result_row`. how: of :func:`fastdd.evaluate`. Nothing is looked up with
            ``groups``, which a row does not tell from others of their name, nor with ``keep_nets``.
    """
    if run is None or not (run / report.RESULT).exists() or how.get("groups") or how.get("keep_nets"):
        return None
    settings = {name: value for name, value in how.items() if name not in ("device", "groups", "keep_nets")}
    plan = api.planned_evaluation(what, data, api.pick_device(how["device"]), **settings)
    expected = report.planned(plan, **about)
    # That a row has only where they are not plain.
    names = {"width", "depth", "training", "constants", "groups_from", "trained", "labels", "teacher_digest"}
    for row in reversed(report.read_results(run / report.RESULT)["rows"]):
        if all(row.get(name) == expected.get(name) for name in {*expected, *names}):
            return row
    return None


def print_repeats(
    rows: Mapping[int, Sequence[dict[str, Any]]], title: str, metrics: Sequence[str] = METRICS
) -> list[dict[str, Any]]:
    """Print what holds over distillations, and give it as rows; nothing for a single one."""
    if len(rows) < 2:
        return []
    several = [kind for kind in repeats.kinds(rows) if len(kind) > 1]
    console.print(repeats.repeats_table(several, title, metrics))
    console.print(f"{repeats.WHAT_COVERS}; sd: standard deviations, of sets and of single networks on a set")
    return [repeats.over_distillations(kind) for kind in several]


def check_results(run: Path) -> None:
    """That the run's results can be read, and others written beside them."""
    files.check_writable(run / report.RESULT)
    if (run / report.RESULT).exists():
        try:
            report.read_results(run / report.RESULT)
        except ValueError as error:
            raise ValueError(f"{error}; move it away: it has the results so far, and a new one is begun") from None
