"""``fastdd study``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from rich.table import Table

from fastdd import api, studies
from fastdd.cli.console import console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, data_options, load_dataset
from fastdd.cli.distill import distill_with_bar
from fastdd.cli.options import EVALUATION, RUN, Command, Device, Seed, new_app
from fastdd.cli.plan import time_text
from fastdd.cli.results import evaluate_with_bar
from fastdd.data import Dataset
from fastdd.debias import mode
from fastdd.studies.kept import PICTURE, ROWS, Work

app = new_app()

Number = TypeVar("Number", int, float)

_STUDY = "Study"
Ipc = Annotated[int, typer.Option(help="Synthetic images per class.", min=1, rich_help_panel=_STUDY)]
Iterations = Annotated[
    int | None, typer.Option(help="Of each distillation.", show_default="preset", min=1, rich_help_panel=_STUDY)
]
Nets = Annotated[int, typer.Option(help="Networks of each evaluation.", min=1, rich_help_panel=EVALUATION)]
Epochs = Annotated[
    int | None, typer.Option(help="Their epochs.", show_default="published", min=1, rich_help_panel=EVALUATION)
]


def _out(name: str) -> Any:
    option = typer.Option(
        "--out",
        help=f"Folder of {ROWS} and {PICTURE}; rows that are there are kept.",
        show_default=f"runs/study-{name}",
        rich_help_panel=RUN,
    )
    return Annotated[Path | None, option]


def _list(option: str, help: str, default: str) -> Any:
    return Annotated[str | None, typer.Option(option, help=help, show_default=default, rich_help_panel=_STUDY)]


def _joined(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


Variance = _list("--variance", "Of the kernel, joined by commas.", _joined(studies.kde.KNOBS["variance"]))
Temperature = _list("--temperature", "Of the softmax over scores.", _joined(studies.kde.KNOBS["temperature"]))
Clip = _list("--clip", "Cut-offs of scores.", _joined(studies.kde.KNOBS["clip"]))
_SEVERITIES, _MODES = "1,2,3,4", "none,fairdd"
Severities = _list("--severity", "Severities of the bias, joined by commas.", _SEVERITIES)
Modes = _list("--debias", "Modes of debiasing, joined by commas (fastdd modes).", _MODES)
Points = _list("--points", "Numbers of points, joined by commas.", _joined(studies.density.POINTS))
Only = Annotated[
    bool,
    typer.Option("--estimate", help="Tell what the missing rows take here, and do nothing else.", rich_help_panel=RUN),
]
KdeOut, SeverityOut, DensityOut = (_out(name) for name in studies.STUDIES)


@app.callback()
def study() -> None:
    """What settings do to results, as rows and a picture: kde, severity or density; one that was stopped goes on."""


@app.command(cls=Command)
def kde(
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    ipc: Ipc = 10,
    iterations: Iterations = None,
    variance: Variance = None,
    temperature: Temperature = None,
    clip: Clip = None,
    nets: Nets = 2,
    epochs: Epochs = None,
    seed: Seed = 0,
    device: Device = "auto",
    estimate: Only = False,
    out: KdeOut = None,
) -> None:
    """Variance, temperature and cut-off of KDE weights: accuracy, weight on conflicting images, ESS, AUC."""
    given = {"variance": variance, "temperature": temperature, "clip": clip}
    knobs = {
        name: usual if given[name] is None else _numbers(f"--{name}", given[name], float)
        for name, usual in studies.kde.KNOBS.items()
    }
    api.pick_device(device)
    data = load_dataset(dataset, data_root, data_options(data_option, bias_ratio=bias_ratio))
    work = _work(ipc, iterations, nets, epochs, seed, device)
    folder = out or Path("runs") / "study-kde"
    settings = {"dataset_digest": data.digest(), **_settings(work)}
    if estimate:
        with studies.KeptRows(_existing(folder), "kde", settings) as kept:
            sets = studies.kde.missing(kept, knobs)
        once = api.estimate_weights(data, device=device).total if "kde" in sets else 0.0
        # Weights are made once, whatever their settings; runs are given them.
        _print_estimate(data, sets, work, once, {"kde": {"weights": np.linspace(1, 2, len(data.train))}})
        return
    with studies.KeptRows(folder, "kde", settings) as kept:
        rows = studies.kde.study(data, kept, knobs=knobs, work=work, tell=_tell)
    studies.kde.draw(rows, folder / PICTURE, studies.kde.title(data, ipc))
    _end(folder)


@app.command(cls=Command)
def severity(
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    ipc: Ipc = 10,
    iterations: Iterations = None,
    severities: Severities = None,
    debias: Modes = None,
    nets: Nets = 2,
    epochs: Epochs = None,
    seed: Seed = 0,
    device: Device = "auto",
    estimate: Only = False,
    out: SeverityOut = None,
) -> None:
    """How severe a bias is: training images of every severity, and accuracy of sets distilled from them."""
    values = _numbers("--severity", severities or _SEVERITIES, int)
    modes = (debias or _MODES).split(",")
    for name in modes:
        mode(name)
    api.pick_device(device)
    options = data_options(data_option, bias_ratio=bias_ratio)
    if studies.severity.OPTION in options:
        raise ValueError("the study goes through severities: give them with --severity")

    def load(value: int) -> Dataset:
        return load_dataset(dataset, data_root, {**options, studies.severity.OPTION: value})

    work = _work(ipc, iterations, nets, epochs, seed, device)
    folder = out or Path("runs") / "study-severity"
    if estimate:
        with studies.KeptRows(_existing(folder), "severity", _settings(work)) as kept:
            sets = studies.severity.missing(load, kept, severities=values, modes=modes)
        _print_estimate(load(values[0]), sets, work)
        return
    grid = {value: studies.severity.examples(load(value)) for value in values}  # what is missing is told before work
    with studies.KeptRows(folder, "severity", _settings(work)) as kept:
        rows = studies.severity.study(load, kept, severities=values, modes=modes, work=work, tell=_tell)
    studies.severity.draw(rows, grid, folder / PICTURE, f"{dataset}, dm, {ipc} images a class")
    _end(folder)


@app.command(cls=Command)
def density(points: Points = None, seed: Seed = 0, out: DensityOut = None) -> None:
    """How near the kernel density of points from a normal distribution comes to it, by their number."""
    values = studies.density.POINTS if points is None else _numbers("--points", points, int)
    folder = out or Path("runs") / "study-density"
    with studies.KeptRows(folder, "density", {"seed": seed}) as kept:
        rows = studies.density.study(kept, points=values, seed=seed, tell=_tell)
    studies.density.draw(rows, seed, folder / PICTURE)
    _end(folder)


def _numbers(option: str, text: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    try:
        return tuple(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"{option} must be {what} joined by commas, not {text!r}") from None


def _work(ipc: int, iterations: int | None, nets: int, epochs: int | None, seed: int, device: str) -> Work:
    same = {"seed": seed, "device": device}
    return Work(
        {"ipc": ipc, "iterations": iterations, **same},
        {"nets": nets, "epochs": epochs, **same},
        lambda data, **given: distill_with_bar(data, f"{given['debias']} {data.name}", **given),
        lambda what, data, **given: evaluate_with_bar(what, data, f"evaluating on {data.name}", **given),
    )


def _settings(work: Work) -> dict[str, Any]:
    """What rows depend on, as they are kept."""
    return {**work.distillation, **work.evaluation}


def _existing(folder: Path) -> Path | None:
    """The folder, where it is there: an estimate makes none."""
    return folder if folder.exists() else None


def _print_estimate(
    data: Dataset,
    sets: Mapping[str, int],
    work: Work,
    once: float = 0.0,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Print what sets, by their debias mode, take to be distilled and tested.

    Args:
        once: seconds of what is done once for all of them.
        given: by mode, more arguments of its distillation.
    """
    tests = {name: work.evaluation[name] for name in ("nets", "epochs")}
    table = Table(title=f"{data.name}: what is missing", title_justify="left", box=None)
    for name in ("debias", "sets", "distillation", "evaluation", "all"):
        table.add_column(name, justify="left" if name == "debias" else "right")
    total = once
    for debias, count in sets.items():
        more = (given or {}).get(debias, {})
        parts = dict(api.estimate(data, debias=debias, **work.distillation, **tests, **more).seconds)
        tested = parts.pop("evaluation")
        distilled = sum(parts.values())
        total += count * (distilled + tested)
        times = (distilled, tested, count * (distilled + tested))
        table.add_row(debias, str(count), *map(time_text, times))
    console.print(table)
    console.print(f"{f'weights, once: {time_text(once)}; ' if once else ''}together about {time_text(total)} here")


def _tell(row: dict[str, Any]) -> None:
    console.print(
        " ".join(
            f"{name} {_shown(value)}" for name, value in row.items() if value is not None and name != "dataset_digest"
        )
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "-" if value["mean"] is None else f"{value['mean']:.1f} ± {value['std']:.1f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _end(folder: Path) -> None:
    console.print(f"rows in {folder / ROWS}, picture in {folder / PICTURE}")
