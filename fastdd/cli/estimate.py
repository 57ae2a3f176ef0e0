"""``fastdd estimate``."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import typer

from fastdd import api
from fastdd.cli import commands
from fastdd.cli.datasets import data_options, load_dataset, named_values
from fastdd.cli.distill import NETS, check_evaluation
from fastdd.cli.evaluate import networks, to_evaluate
from fastdd.cli.options import Command, new_app
from fastdd.cli.plan import show_estimate, times, write_estimate
from fastdd.cli.rank import PROTOCOL, check_options
from fastdd.cli.repeats import targets
from fastdd.cli.train import parsed_grid
from fastdd.core import files
from fastdd.core.settings import given
from fastdd.core.text import one_of
from fastdd.data import Dataset
from fastdd.session import Estimate
from fastdd.session.repeats import parse_seeds

app = new_app()

_COMMANDS = ("distill", "experts", "evaluate", "train")
# Options that decide nothing about what a command takes.
_WITHOUT_COST = ("config", "resume", "checkpoint_seconds", "deo", "keep_nets", "full", "dry_run", "log")


@app.command(cls=Command, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def estimate(context: typer.Context) -> None:
    """Time, memory and disk of a run, before it.

    fastdd estimate [distill|experts|evaluate|train] and that command's options; without a command's name, distill.
    A few steps are done and timed; --json writes the figures.
    """
    arguments = list(context.args)
    if arguments and arguments[0] not in _COMMANDS and not arguments[0].startswith("-"):
        raise ValueError(f"there is no estimate of {arguments[0]!r}; {one_of(arguments[0], _COMMANDS)}")
    name = arguments.pop(0) if arguments and arguments[0] in _COMMANDS else _COMMANDS[0]
    options = commands.load(name).make_context(f"fastdd {name}", arguments).params
    print_estimate(name, {option: value for option, value in options.items() if option not in _WITHOUT_COST})


def print_estimate(command: str, options: dict[str, Any]) -> None:
    """Print what ``fastdd COMMAND`` with these options will take.

    Args:
        command: distill, experts, evaluate or train.
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
        of_command = {"distill": _of_distillation, "experts": _of_experts, "train": _of_training}[command]
        estimated = of_command(data, given(options))
    estimated = replace(estimated, seconds={"start": started, **estimated.seconds})
    write_estimate(estimated, json)
    show_estimate(estimated, f"fastdd {command}, {data.name}", out or Path("runs"))


def _since_start() -> float:
    return time.time() - psutil.Process().create_time()


def _of_distillation(data: Dataset, options: dict[str, Any]) -> Estimate:
    evaluated, seeds = options.pop("evaluate"), options.pop("seeds", None)
    check_evaluation(evaluated, options.get("nets"), options.get("epochs"))
    nets = options.pop("nets", NETS) if evaluated else 0
    return times(api.estimate(data, nets=nets, **options), 1 if seeds is None else len(parse_seeds(seeds)))


def _of_experts(data: Dataset, options: dict[str, Any]) -> Estimate:
    if options.pop("processes") > 1:
        raise ValueError("an estimate is for one process; leave --processes out")
    constants = dict(named_values("--constant", options.pop("constant", None)))
    return api.estimate_experts(data, constants=constants, **options)


def _of_training(data: Dataset, options: dict[str, Any]) -> Estimate:
    constants = dict(named_values("--constant", options.pop("constant", None)))
    grid = parsed_grid(options.pop("lr_grid", None))
    return api.NetworkTraining(data, constants=constants, lr_grid=grid, **options).estimate()


def _of_evaluation(
    where: tuple[str | None, Path | None], of_data: dict[str, Any], options: dict[str, Any]
) -> tuple[Dataset, float, Estimate]:
    """The data set, the seconds until it was there, and the estimate: that of all networks."""
    if options["protocol"] == PROTOCOL:
        raise ValueError(f"there is no estimate of protocol {PROTOCOL}: evaluate --dry-run counts its trainings")
    check_options(options["protocol"], {name: options.pop(name) for name in ("rates", "whole_epochs", "compat")}, {})
    archs, seeds = networks(options.pop("arch")), options.pop("seeds")
    places = targets(options.pop("target"), seeds)
    target = next(iter(places.values()))
    what, data, options["ipc"] = to_evaluate(target, *where, of_data, options["ipc"])
    options["learning_rate"] = options.pop("lr_net")
    options["constants"] = dict(named_values("--constant", options.pop("constant")))
    started = _since_start()
    estimates = [api.estimate_evaluation(what, data, arch=arch, **options) for arch in archs]
    parts = {name: len(places) * sum(one.seconds[name] for one in estimates) for name in estimates[0].seconds}
    return data, started, replace(estimates[-1], seconds=parts)
