"""``fastdd train``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, models, report
from fastdd.cli.completion import words
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, data_options, load_dataset, named_values
from fastdd.cli.loggers_option import Log
from fastdd.cli.options import (
    RUN,
    Command,
    Config,
    Device,
    DryRun,
    Full,
    Json,
    constants_option,
    new_app,
    with_constants,
    with_settings,
)
from fastdd.cli.plan import show_estimate, show_plan, write_estimate
from fastdd.core import files
from fastdd.core.settings import given
from fastdd.data import Dataset
from fastdd.evaluation import METRICS
from fastdd.session.trained import TrainedNetwork
from fastdd.training import RECIPES, TrainSettings

app = new_app()

_TRAINING = "Training"


class Train(Command):
    """Takes the config.yaml of a network, whose settings it has."""

    section = "train"

    def from_section(self, content: dict[str, Any]) -> dict[str, Any]:
        return with_constants(content[self.section])


Constants = constants_option(_TRAINING)
Fakes = Annotated[
    str | None,
    typer.Option(
        help="Fake images, for --use: a folder CLASS/GROUP/*.png, a packed store, for ffr a distilled run or set, or "
        "stand-in[:SEVERITY]: degraded validation images.",
        metavar="DIR|STORE|RUN|stand-in",
        show_default=False,
        rich_help_panel=_TRAINING,
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="File that the network begins with: of fastdd train, or a state dict (.pt, .safetensors).",
        show_default="a random start",
        rich_help_panel=_TRAINING,
    ),
]
Stages = Annotated[
    str, typer.Option(help="Of ffr: both, 1 (fake images) or 2 (real ones, from --weights).", rich_help_panel=_TRAINING)
]
Grid = Annotated[
    str | None,
    typer.Option(
        help="Learning rates, joined by commas, of which validation images choose one.",
        show_default=False,
        rich_help_panel=_TRAINING,
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the network.", show_default=False, rich_help_panel=RUN)]
Resume = Annotated[bool, typer.Option("--resume", help="Continue that in --out; start if none.", rich_help_panel=RUN)]


@app.command(cls=Train)
@with_settings(
    {"train": TrainSettings},
    after="stages",
    everyone=_TRAINING,
    but=("dataset", "constants"),
    values={"training": RECIPES},
    completions={"arch": words(models.names)},
)
def train(
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    constant: Constants = None,
    fakes: Fakes = None,
    weights: WeightsFile = None,
    stages: Stages = "both",
    lr_grid: Grid = None,
    out: Out = None,
    resume: Resume = False,
    log: Log = None,
    dry_run: DryRun = False,
    config: Config = None,
    full: Full = False,
    device: Device = "auto",
    json: Json = None,
    **settings: Any,
) -> None:
    """Train one network on biased images, with fake ones or without; worst group and fairness on the test set."""
    if json is not None:
        files.check_writable(json)
    data = load_dataset(dataset, data_root, data_options(data_option, bias_ratio=bias_ratio))
    how = {"fakes": fakes, "weights": weights, "stages": stages, "lr_grid": parsed_grid(lr_grid), "device": device}
    how |= {"constants": dict(named_values("--constant", constant)) or None, **given(settings)}
    if dry_run:
        _tell_plan(api.NetworkTraining(data, **how), out, resume, log or [], how, json)
        return
    trained = network_with_bar(data, out=out, resume=resume, log=log or [], **how)
    row = report.network_row(trained)
    row |= {"class_names": list(data.class_names), "group_names": list(data.group_names)}
    _write(row, data.digest(), out, json)
    images = "test set" if data.tested_on == "test" else "held-out training images"
    console.print(report.table([row], f"{data.name}, {images}, %", METRICS))
    kept = f"epoch {trained.epoch} of {trained.settings.epochs}, learning rate {trained.settings.lr:g}"
    if trained.fakes is not None:
        kept += f", {int(trained.fakes.sum()):,} fake images ({trained.fakes_from})"
    console.print(kept)
    if trained.unfilled:
        console.print(f"at random starts, not in {weights}: {', '.join(trained.unfilled)}")
    if data.num_groups > 1:
        console.print(report.group_table(row, data.class_names, data.group_names, full=full))


def _tell_plan(
    training: api.NetworkTraining,
    out: Path | None,
    resume: bool,
    log: list[str],
    how: dict[str, Any],
    json: Path | None,
) -> None:
    """The settings and the estimate, after all checks; nothing is written."""
    training.check(out=out, resume=resume, log=log)
    about = {name: how[name] for name in ("fakes", "weights", "stages", "lr_grid") if how[name] is not None}
    settings = training.settings.model_dump() | about
    folders = training.folders(out)
    where = ", ".join(map(str, folders)) or "a network, and keep none of it,"
    show_plan(f"fastdd train would make {where} on {training.device}, with", settings)
    estimated = training.estimate()
    if not folders:
        estimated = replace(estimated, disk=0)
    plan = {**settings, "weights": None if how["weights"] is None else str(how["weights"])}
    write_estimate(estimated, json, plan=plan | {"out": list(map(str, folders))})
    show_estimate(estimated, f"fastdd train, {training.data.name}", out or Path())
    console.print("nothing was written (--dry-run)")


def network_with_bar(data: Dataset, **given: Any) -> TrainedNetwork:
    """:func:`fastdd.train_network` with a progress bar."""
    with bar(f"training on {data.name}") as update:

        def progress(done: int, total: int, row: dict[str, Any]) -> None:
            worst = f", validation WA {row['wa']:.1f}" if "wa" in row else ""
            update(done, total, f"epochs, {row['stage']} images, loss {row['loss']:.4g}{worst}")

        return api.train_network(data, progress=progress, **given)


def parsed_grid(text: str | None) -> list[float] | None:
    """The learning rates of ``--lr-grid``."""
    if text is None:
        return None
    try:
        return [float(rate) for rate in text.split(",")]
    except ValueError:
        raise ValueError(f"--lr-grid must be numbers joined by commas, not {text!r}") from None


def _write(row: dict[str, Any], digest: str, out: Path | None, json: Path | None) -> None:
    document = report.document([row], dataset_digest=digest)
    if out is not None:
        report.write_json(out / report.RESULT, document)
    if json is not None:
        report.write_json(json, document)
