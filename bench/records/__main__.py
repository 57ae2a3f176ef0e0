"""``python -m fastdd.bench.records``."""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from fastdd.bench.framework import machine
from fastdd.bench.records import record, table
from fastdd.bench.records.targets import TARGETS, target
from fastdd.core import files
from fastdd.session.repeats import parse_seeds


def _folder() -> Path:
    """Where records go: an installed package is not written to."""
    return record.RECORDS if machine.git(record.RECORDS.parents[1]) else Path("records")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fastdd.bench.records", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("targets", help="what is to be reached")
    runner = commands.add_parser("run", help="run the seeds of a record that it lacks")
    runner.add_argument("target", help="a name of targets")
    runner.add_argument("--name", required=True, help="of the record")
    runner.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of fastdd distill")
    runner.add_argument("--structure", choices=record.STRUCTURES, default="fastdd", help="published: its loop")
    runner.add_argument("--seeds", default="5", help="5 for 0 to 4, or such as 0,3")
    runner.add_argument("--nets", type=int, default=5, help="networks that check every seed")
    runner.add_argument("--time-steps", type=int, help="time so many steps, in place of doing all; nothing is checked")
    runner.add_argument("--data-root", type=Path, help="folder of the data set's files")
    runner.add_argument("--device", default="auto")
    runner.add_argument(
        "--out", type=Path, default=_folder(), help="folder of records (a checkout's bench/records; else ./records)"
    )
    writer = commands.add_parser("table", help="write the tables of docs/records.md anew")
    writer.add_argument("--page", type=Path, default=table.PAGE)
    return parser


def settings(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE as settings; values as YAML has them.

    >>> settings(["lr_img=4", "init=balanced"])
    {'lr_img': 4, 'init': 'balanced'}
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--set takes NAME=VALUE, such as lr_img=4, not {text!r}")
        found[name.replace("-", "_")] = yaml.safe_load(value)
    return found


def _run(given: argparse.Namespace) -> None:
    for name, value in (("--nets", given.nets), ("--time-steps", given.time_steps)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    plan = record.Plan(
        target(given.target),
        given.name,
        settings(given.set),
        structure=given.structure,
        nets=given.nets,
        timed_steps=given.time_steps,
        device=given.device,
    )
    made = record.run(plan, parse_seeds(given.seeds), given.data_root, given.out)
    for threshold in plan.target.thresholds:
        values = [row.get(threshold.figure) for row in made["seeds"]]
        if None not in values:
            found = record.verdict(values, threshold)
            p = "" if found.p is None else f", p = {found.p:.3g}"
            print(f"{threshold}: {found.mean:.2f}{p} ({len(values)} seeds)")
    folder = record.folder_of(plan, given.out).name
    print(f"{folder}: distilled in {table.cost(made):.1f} s (the processor's; with a GPU the wall's)")


def main() -> int:
    """The command."""
    given = _parser().parse_args()
    try:
        if given.command == "targets":
            for one in TARGETS.values():
                print(f"{one.name}: {', '.join(map(str, one.thresholds))}")
        elif given.command == "run":
            _run(given)
        else:
            files.write_text(given.page, table.page(given.page.read_text(encoding="utf-8"), record.records()))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
