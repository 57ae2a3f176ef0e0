"""``fastdd estimate``."""

import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.table import Table

from fastdd import api, report
from fastdd.cli.console import console
from fastdd.cli.datasets import data_options
from fastdd.cli.runs import load_dataset, to_evaluate
from fastdd.core import files
from fastdd.session import Estimate

# Options that decide nothing about what a command takes.
_WITHOUT_COST = ("resume", "checkpoint_seconds", "deo")


def run_estimate(command: str, options: dict[str, Any]) -> None:
    """Print what ``fastdd COMMAND`` with these options will take.

    Args:
        command: distill, experts or evaluate.
        options: the command's own, as it parses them.
    """
    options = {name: value for name, value in options.items() if name not in _WITHOUT_COST}
    json, out = options.pop("json"), options.pop("out", None)
    if json is not None:
        files.check_writable(json)
    by_name = {name: options.pop(name, None) for name in ("bias_ratio", "val_split")}
    named = data_options(options.pop("data_option"), **by_name)
    where = options.pop("dataset"), options.pop("data_root")
    process = psutil.Process()
    if command == "evaluate":
        archs, target = options.pop("arch"), options.pop("target")
        what, data, options["ipc"] = to_evaluate(target, *where, named, options["ipc"])
        options["learning_rate"] = options.pop("lr_net")
        started = time.time() - process.create_time()
        taken = [
            api.estimate_evaluation(what, data, arch=arch, **options)
            for arch in (archs.split(",") if archs else [None])
        ]
        parts = {name: sum(one.seconds[name] for one in taken) for name in taken[0].seconds}
        made = replace(taken[-1], seconds=parts)
    else:
        data = load_dataset(*where, named)
        data.digest()  # a run takes it too: of all pixels, but for a packed store
        started = time.time() - process.create_time()
        if command == "distill":
            nets, evaluation = options.pop("nets"), options.pop("evaluate")
            made = api.estimate(data, nets=nets if evaluation else 0, **options)
        else:
            processes = options.pop("processes")
            if processes > 1:
                raise ValueError("an estimate is for one process; leave --processes out")
            made = api.estimate_experts(data, **options)
    made = replace(made, seconds={"start": started, **made.seconds})
    _print(made, f"fastdd {command}, {data.name}", out or Path("runs"))
    if json is not None:
        report.write_json(json, report.document([], estimate={**asdict(made), "total": made.total}))


def _print(made: Estimate, title: str, out: Path) -> None:
    table = Table(
        title=f"{title}: what it takes here, {torch.get_num_threads()} threads", title_justify="left", box=None
    )
    table.add_column("part")
    table.add_column("time", justify="right")
    for name, seconds in made.seconds.items():
        table.add_row(name, time_text(seconds))
    table.add_row("total", time_text(made.total))
    console.print(table)
    free = psutil.virtual_memory().available
    console.print(f"memory: {_size(made.memory)} at most ({_size(free)} available)")
    if made.gpu_memory is not None:
        console.print(f"GPU memory: {_size(made.gpu_memory)} at most")
    folder = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    if made.disk:
        console.print(f"disk: {_size(made.disk)} in {out} ({_size(shutil.disk_usage(folder).free)} free)")
    for note in made.notes:
        console.print(note)


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
