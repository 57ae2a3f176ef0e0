"""``fastdd experts``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, models, report
from fastdd.cli.completion import words
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import (
    BiasRatio,
    Name,
    Options,
    Root,
    data_options,
    groups_option,
    load_dataset,
    named_values,
    weights_option,
)
from fastdd.cli.loggers_option import Log
from fastdd.cli.options import (
    RUN,
    Command,
    Config,
    Device,
    DryRun,
    Group,
    Json,
    constants_option,
    new_app,
    with_constants,
    with_settings,
)
from fastdd.cli.plan import show_estimate, show_plan, write_estimate
from fastdd.core import files, ranks
from fastdd.core.settings import given
from fastdd.data import Dataset
from fastdd.debias import MODES
from fastdd.experts import ExpertProgress, ExpertSettings
from fastdd.experts.buffers import export_buffers
from fastdd.experts.store import Experts
from fastdd.session.loggers import numbers, write_rows
from fastdd.training import RECIPES

app = new_app()

# Of debias modes.
_IN_TRAINING = {name: mode for name, mode in MODES.items() if mode.in_training is not None}
_RECIPES = [name for name, recipe in RECIPES.items() if recipe.net_predicts]
_TRAINING = "Training"


class TrainExperts(Group):
    """Takes the manifest.json of experts, whose settings it has."""

    section = "config"

    def from_section(self, content: dict[str, Any]) -> dict[str, Any]:
        return with_constants(content[self.section])


Weights = weights_option([name for name, mode in _IN_TRAINING.items() if mode.needs == "weights"])
Groups = groups_option([name for name, mode in _IN_TRAINING.items() if mode.needs == "groups"])
Constants = constants_option(_TRAINING)
Ipc = Annotated[
    int,
    typer.Option(help="Synthetic images per class of the distillation that they are for.", rich_help_panel=_TRAINING),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the experts.",
        show_default="runs/experts-DEBIAS-DATASET, or TRAINING for DEBIAS",
        rich_help_panel=RUN,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue those in --out; start if none.", rich_help_panel=RUN)]
Processes = Annotated[
    int, typer.Option(help="Experts that train side by side and share the threads.", rich_help_panel=RUN)
]
Folder = Annotated[Path, typer.Argument(help="Folder of experts.", metavar="DIR")]


@app.callback(cls=TrainExperts, invoke_without_command=True)
@with_settings(
    {"experts": ExpertSettings},
    after="constant",
    everyone=_TRAINING,
    but=("dataset", "constants"),
    values={"debias": _IN_TRAINING, "training": _RECIPES},
    completions={"arch": words(models.names)},
)
def experts(
    context: typer.Context,
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    weights: Weights = None,
    groups: Groups = None,
    ipc: Ipc = 10,
    constant: Constants = None,
    out: Out = None,
    resume: Resume = False,
    log: Log = None,
    dry_run: DryRun = False,
    config: Config = None,
    device: Device = "auto",
    processes: Processes = 1,
    json: Json = None,
    **settings: Any,
) -> None:
    """Train the experts that trajectory matching follows; or import, export or check some."""
    if context.invoked_subcommand is not None:
        return
    if json is not None:
        ranks.first(lambda: files.check_writable(json))
    data = load_dataset(dataset, data_root, data_options(data_option, bias_ratio=bias_ratio))
    usual = {name: ExpertSettings.model_fields[name].default for name in ("debias", "training")}
    settings = {**usual, **given(settings), "constants": dict(named_values("--constant", constant)) or None}
    what = settings["debias"] if settings["training"] == "erm" else settings["training"]
    out = out or Path("runs") / f"experts-{what}-{data.name}"
    if dry_run:
        _tell_plan(
            data, out, resume, json, {"ipc": ipc, "device": device, "weights": weights, "groups": groups, **settings}
        )
        return
    trained = train_with_bar(
        data,
        out=out,
        ipc=ipc,
        resume=resume,
        device=device,
        processes=processes,
        weights=weights,
        groups=groups,
        **settings,
    )
    rows = report.expert_rows(trained.manifest)
    write_rows(log, out, trained.manifest["config"], _by_epoch(trained.manifest))
    if json is not None:
        about = {name: trained.manifest[name] for name in ("config", "dataset", "dataset_digest")}
        seconds = [entry["seconds"] for entry in trained.manifest["experts"]]
        document = report.document(rows, **about, digest=trained.digest(), expert_seconds=seconds)
        ranks.first(lambda: report.write_json(json, document))
    if "kde" in trained.manifest:
        console.print(report.weight_summary(trained.manifest["kde"]["diagnostics"]))
    if rows:
        title = f"{trained.number} experts of {data.name}, {how_trained(settings)}"
        console.print(report.expert_summary(rows, f"{title}: test set, mean ± deviation, %"))
    console.print(f"{_size(trained)} in {out}")


def _by_epoch(manifest: Mapping[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """Of every evaluated epoch the loss and figures of each expert."""
    found: dict[int, dict[str, float]] = {}
    for number, entry in enumerate(manifest["experts"]):
        for row in entry["evaluations"]:
            about = {name: value for name, value in row.items() if name != "epoch"}
            found.setdefault(row["epoch"], {}).update(numbers(about, f"expert-{number}/"))
    return sorted(found.items())


def _tell_plan(data: Dataset, out: Path, resume: bool, json: Path | None, settings: dict[str, Any]) -> None:
    """The settings and the estimate; nothing has been written."""
    config = api.check_experts(data, out=out, resume=resume, **settings).model_dump()
    show_plan(f"fastdd experts would make {out}, with", config)
    estimated = api.estimate_experts(data, **settings)
    write_estimate(estimated, json, plan={**config, "out": [str(out)]})
    show_estimate(estimated, f"fastdd experts, {data.name}", out)
    console.print("nothing was written (--dry-run)")


def train_with_bar(data: Dataset, **settings: Any) -> Experts:
    """:func:`fastdd.train_experts` under a progress bar."""
    with bar(f"experts of {data.name}, {how_trained(settings)}") as update:

        def progress(now: ExpertProgress) -> None:
            rate = (now.epoch - now.started) / now.seconds if now.seconds else None
            update(now.epoch, now.total, f"epochs  loss {now.loss:.4g}", rate)

        def embedding_progress(done: int, total: int) -> None:
            update(done, total, "bias embedding")

        return api.train_experts(data, progress=progress, embedding_progress=embedding_progress, **settings)


def how_trained(config: Mapping[str, Any]) -> str:
    """Of settings of experts: the recipe, or with plain training the debias mode."""
    recipe = config.get("training")
    return f"debias {config['debias']}" if recipe in (None, "erm") else f"training {recipe}"


@app.command("import", cls=Command)
def import_(
    buffers: Annotated[list[Path], typer.Argument(help="Published buffers (replay_buffer_*.pt).", metavar="FILES...")],
    out: Annotated[Path, typer.Option(help="Folder of the experts.")],
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    debias: Annotated[str, typer.Option(help=f"What they were trained with: {', '.join(_IN_TRAINING)}.")] = "none",
    training: Annotated[str, typer.Option(help=f"The recipe: {', '.join(_RECIPES)}.")] = "erm",
    arch: Annotated[str, typer.Option(help="Their network.")] = "ConvNet",
    width: Annotated[int | None, typer.Option(help="Filters of each convolution.", show_default="preset")] = None,
    depth: Annotated[int | None, typer.Option(help="Blocks of layers.", show_default="preset")] = None,
    zca: Annotated[
        bool, typer.Option("--zca", help="They saw whitened images: fit the same whitening on --dataset.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Precision that is stored: fp32, or bf16 for half the space.")] = "fp32",
    device: Device = "auto",
) -> None:
    """Make experts of published buffers, bit for bit."""
    imported = api.import_experts(
        sorted(buffers, key=_buffer_number),
        load_dataset(dataset, data_root, data_options(data_option, bias_ratio=bias_ratio)),
        out=out,
        debias=debias,
        training=training,
        arch=arch,
        width=width,
        depth=depth,
        zca=zca,
        dtype=dtype,
        device=device,
    )
    console.print(f"{_size(imported)} in {out}")


@app.command(cls=Command)
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Folder for the buffers.")],
    per_file: Annotated[int, typer.Option(help="Experts a file.")] = 10,
    force: Annotated[bool, typer.Option("--force", help="Replace buffers that are there.")] = False,
) -> None:
    """Write published buffers (replay_buffer_*.pt)."""
    written = export_buffers(Experts.open(folder), out, per_file, force=force)
    console.print(f"{len(written)} buffers in {out}")


@app.command(cls=Command)
def check(folder: Folder) -> None:
    """Check sizes and SHA-256 of experts; print every expert's accuracy and fairness."""
    opened = Experts.open(folder)
    damaged = opened.damaged()
    config = opened.manifest["config"]
    console.print(
        report.expert_table(opened.manifest, f"{opened.manifest['dataset']}, {config['arch']}, {how_trained(config)}")
    )
    if damaged:
        raise RuntimeError(f"{folder}: the values of experts {', '.join(map(str, damaged))} are not those written")
    console.print(f"{_size(opened)}: every SHA-256 is right")


def _size(experts: Experts) -> str:
    return f"{experts.number} experts, {experts.epochs} epochs, {experts.parameters:,} parameters"


def _buffer_number(path: Path) -> tuple[int, str]:
    """replay_buffer_10.pt comes after replay_buffer_2.pt, which a shell does not know."""
    digits = path.stem.removeprefix("replay_buffer_")
    return (int(digits) if digits.isdecimal() else -1, str(path))
