"""``fastdd estimate``."""

import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import torch
import typer
from rich.table import Table

from fastdd import api, report
from fastdd.cli import commands
from fastdd.cli.console import console
from fastdd.cli.datasets import data_options, load_dataset, named_values
from fastdd.cli.evaluate import to_evaluate
from fastdd.cli.options import Command, new_app
from fastdd.cli.repeats import targets
from fastdd.core import files
from fastdd.core.settings import given
from fastdd.data import Dataset
from fastdd.session import Estimate
from fastdd.session.repeats import parse_seeds

app = new_app()

_COMMANDS = ("distill", "experts", "evaluate")
# Options that decide nothing about what a command takes.
_WITHOUT_COST = ("config", "resume", "checkpoint_seconds", "deo", "keep_nets")


@app.command(cls=Command, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def estimate(context: typer.Context) -> None:
    """Time, memory and disk of a run, before it.

    fastdd estimate [distill|experts|evaluate] and that command's options; without a command's name, distill. A few
    steps are done and timed; --json writes the figures.
    """
    arguments = list(context.args)
    name = arguments.pop(0) if arguments and arguments[0] in _COMMANDS else _COMMANDS[0]
    options = commands.load(name).make_context(f"fastdd {name}", arguments).params
    print_estimate(name, {option: value for option, value in options.items() if option not in _WITHOUT_COST})


def print_estimate(command: str, options: dict[str, Any]) -> None:
    """Print what ``fastdd COMMAND`` with these options will take.

    Args:
        command: distill, experts or evaluate.
        options: the command's own, as it parses them.
    """
    json, out = options.pop("json"), options.pop("out", None)
    if json is not None:
        files.check_writable(json)
    named = {name: options.pop(name, None) for name in ("bias_ratio", "val_split")}
    of_data = data_options(options.pop("data_option"), **named)
    where = options.pop("dataset"), options.pop("data_root")
    if command == "evaluate":
        data, started, estimated = _of_evaluation(where, of_data, options)
    else:
        data = load_dataset(*where, of_data)
        data.digest()  # a run takes it too: of all pixels, but for a packed store
        started = _since_start()
        estimated = (_of_distillation if command == "distill" else _of_experts)(data, given(options))
    estimated = replace(estimated, seconds={"start": started, **estimated.seconds})
    if json is not None:
        report.write_json(json, report.document([], estimate={**asdict(estimated), "total": estimated.total}))
    _print(estimated, f"fastdd {command}, {data.name}", out or Path("runs"))


def _since_start() -> float:
    return time.time() - psutil.Process().create_time()


def _of_distillation(data: Dataset, options: dict[str, Any]) -> Estimate:
    nets, evaluated, seeds = options.pop("nets"), options.pop("evaluate"), options.pop("seeds", None)
    return _times(api.estimate(data, nets=nets if evaluated else 0, **options), seeds)


def _times(one: Estimate, seeds: str | None) -> Estimate:
    """What repeats take: every one the same time and disk space, one after the other."""
    count = 1 if seeds is None else len(parse_seeds(seeds))
    seconds = {name: count * value for name, value in one.seconds.items()}
    return replace(one, seconds=seconds, disk=count * one.disk)


def _of_experts(data: Dataset, options: dict[str, Any]) -> Estimate:
    if options.pop("processes") > 1:
        raise ValueError("an estimate is for one process; leave --processes out")
    constants = dict(named_values("--constant", options.pop("constant", None)))
    return api.estimate_experts(data, constants=constants, **options)


def _of_evaluation(
    where: tuple[str | None, Path | None], of_data: dict[str, Any], options: dict[str, Any]
) -> tuple[Dataset, float, Estimate]:
    """The data set, the seconds until it was there, and the estimate: that of all networks."""
    archs, seeds = options.pop("arch"), options.pop("seeds")
    places = targets(options.pop("target"), seeds)
    target = next(iter(places.values()))
    what, data, options["ipc"] = to_evaluate(target, *where, of_data, options["ipc"])
    options["learning_rate"] = options.pop("lr_net")
    options["constants"] = dict(named_values("--constant", options.pop("constant")))
    started = _since_start()
    estimates = [
        api.estimate_evaluation(what, data, arch=arch, **options) for arch in (archs.split(",") if archs else [None])
    ]
    parts = {name: len(places) * sum(one.seconds[name] for one in estimates) for name in estimates[0].seconds}
    return data, started, replace(estimates[-1], seconds=parts)


def _print(estimated: Estimate, title: str, out: Path) -> None:
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
