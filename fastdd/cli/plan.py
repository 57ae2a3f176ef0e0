"""What a command would do and take: ``--dry-run`` and ``fastdd estimate``."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.table import Table

from fastdd import api, report
from fastdd.cli.console import console
from fastdd.data import Dataset, SyntheticSet
from fastdd.session import Estimate


def show_plan(title: str, settings: Mapping[str, Any]) -> None:
    """Of ``--dry-run``: all settings of what would be done, those of presets too."""
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    for name, value in settings.items():
        if value is not None:
            table.add_row(name, str(value))
    console.print(table)


def show_estimate(estimated: Estimate, title: str, out: Path) -> None:
    """Print what something will take."""
    table = Table(
        title=f"{title}: what it takes here, {torch.get_num_threads()} threads", title_justify="left", box=None
    )
    table.add_column("part")
    table.add_column("time", justify="right")
    for name, seconds in estimated.seconds.items():
        table.add_row(name, time_text(seconds))
    table.add_row("total", time_text(estimated.total))
    console.print(table)
    free = psutil.virtual_memory().available
    console.print(f"memory: {_size(estimated.memory)} at most ({_size(free)} available)")
    if estimated.gpu_memory is not None:
        console.print(f"GPU memory: {_size(estimated.gpu_memory)} at most")
    folder = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    if estimated.disk:
        console.print(f"disk: {_size(estimated.disk)} in {out} ({_size(shutil.disk_usage(folder).free)} free)")
    for note in estimated.notes:
        console.print(note)


def write_estimate(estimated: Estimate, json: Path | None, **meta: Any) -> None:
    """As ``--json`` has it."""
    if json is not None:
        about = {"estimate": {**asdict(estimated), "total": estimated.total}, **meta}
        report.write_json(json, report.document([], **about))


def times(one: Estimate, count: int) -> Estimate:
    """What repeats take: every one the same time and disk space, one after the other."""
    seconds = {name: count * value for name, value in one.seconds.items()}
    return replace(one, seconds=seconds, disk=count * one.disk)


def plan_of_evaluation(
    what: SyntheticSet | str,
    data: Dataset,
    archs: Sequence[str | None],
    sets: int,
    how: dict[str, Any],
    json: Path | None,
) -> None:
    """What would be trained and tested, and the estimate; nothing is written."""
    plan = {"sets": sets, "networks": ", ".join(name or "the set's own" for name in archs), **how}
    show_plan(f"fastdd evaluate would test on {data.name}, with", plan)
    estimates = [api.estimate_evaluation(what, data, arch=arch, **how) for arch in archs]
    seconds = {name: sum(one.seconds[name] for one in estimates) for name in estimates[0].seconds}
    estimated = times(replace(estimates[-1], seconds=seconds), sets)
    write_estimate(estimated, json, plan=plan)
    show_estimate(estimated, f"fastdd evaluate, {data.name}", Path())
    console.print("nothing was written (--dry-run)")


def time_text(seconds: float) -> str:
    """
    >>> time_text(3.21), time_text(75), time_text(7260)
    ('3.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


def _size(size: int) -> str:
    """
    >>> _size(3 * 2**20), _size(5 * 2**30)
    ('3.0 MiB', '5.0 GiB')
    """
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
