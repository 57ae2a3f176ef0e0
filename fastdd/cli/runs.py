"""``fastdd runs``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fastdd import report
from fastdd.cli.console import console
from fastdd.cli.options import Command, Json, new_app
from fastdd.core import files
from fastdd.report import overview

app = new_app()

# Settings that differ are named in a line where runs were not asked for one by one.
_FEW = 8


@app.command(cls=Command)
def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders in which to look for runs, or runs themselves.", metavar="[DIR|RUN...]", show_default="runs"
        ),
    ] = None,
    json: Json = None,
) -> None:
    """List and compare runs: how far they are, and what they reached; of two or more, what differs.

    running: a process is at it; finished; interrupted: the same fastdd distill (or train) with --resume goes on.
    """
    if json is not None:
        files.check_writable(json)
    folders = folders or [Path("runs")]
    in_folders = {folder: overview.find_runs(folder) for folder in folders}
    found = dict.fromkeys(path for paths in in_folders.values() for path in paths)
    without = ", ".join(str(folder) for folder, paths in in_folders.items() if not paths)
    if not found:
        raise ValueError(f"there are no runs in {without}")
    states = [overview.run_state(path) for path in found]
    if json is not None:
        different = overview.differing([one for one in states if one.settings])
        about = {"differing": list(different)}
        report.write_json(json, report.document(overview.overview_rows(states), **about))
    base = folders[0] if len(folders) == 1 else Path(os.path.commonpath([path.absolute() for path in found]))
    if len(folders) > 1:
        base = base if all(path.is_absolute() for path in found) else None
    console.print(overview.overview_table(states, base))
    if without:
        console.print(f"warning: there are no runs in {without}")
    for one in states:
        if one.problem:
            console.print(f"warning: {one.path}: {one.problem}")
    _tell_differences([one for one in states if one.settings], len(folders), base)


def _tell_differences(states: list[overview.RunState], folders: int, base: Path | None) -> None:
    if len(states) < 2:
        return
    different = overview.differing(states)
    if not different:
        console.print("no setting differs")
    elif folders == len(states):  # each was asked for
        console.print(overview.difference_table(states, base))
    else:
        names = ", ".join([*different][:_FEW]) + (f" and {len(different) - _FEW} more" if len(different) > _FEW else "")
        console.print(f"settings that differ: {names}; side by side: fastdd runs RUN RUN")
