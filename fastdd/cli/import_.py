"""``fastdd import``."""

from pathlib import Path
from typing import Annotated

import typer

from fastdd import api
from fastdd.cli.console import console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, data_options
from fastdd.cli.options import Command, Device, new_app
from fastdd.core.files import check_writable, is_stream
from fastdd.data import SyntheticSet
from fastdd.exchange import FORMATS

app = new_app()

Format = Annotated[
    str | None, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.", show_default="by the content")
]
Mean = Annotated[
    str | None,
    typer.Option(help="What images are normalised with: a number a channel, joined by commas.", show_default=False),
]
Std = Annotated[str | None, typer.Option(help="The same.", show_default=False)]
MethodName = Annotated[str | None, typer.Option(help="What it was distilled with.", show_default="the file's")]
DebiasMode = Annotated[str | None, typer.Option(help="The same (fastdd modes).", show_default="none")]
Arch = Annotated[
    str | None, typer.Option(help="Network to evaluate it on.", show_default="the file's, or the data set's")
]
Experiment = Annotated[int | None, typer.Option(help="dc: which of several, from 0.", show_default="last")]
Iteration = Annotated[
    str | None, typer.Option(help="mtt: best, or a number; idc: a number or init.", show_default="best")
]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Learning rate that was learned with the images.", show_default="the file's, if any"),
]
Labels = Annotated[str, typer.Option(help="What soft labels are: probabilities or logits.")]
Whitened = Annotated[bool, typer.Option("--zca", help="Images are whitened: fit the same whitening on --dataset.")]
Factor = Annotated[
    int | None,
    typer.Option(help="dc, idc: of multi-formation: an image holds factor x factor.", show_default="the file's, or 1"),
]
Decoder = Annotated[str | None, typer.Option(help="idc: single, multi or bound.", show_default="single")]
Ipc = Annotated[int | None, typer.Option(help="dcbench: which of its sets.", show_default=False)]


@app.command("import", cls=Command)
def import_(
    path: Annotated[Path, typer.Argument(help="File or folder of another project.", metavar="PATH")],
    out: Annotated[Path, typer.Option(help="The synthetic set (.safetensors).")],
    format: Format = None,
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    mean: Mean = None,
    std: Std = None,
    method: MethodName = None,
    debias: DebiasMode = None,
    arch: Arch = None,
    experiment: Experiment = None,
    iteration: Iteration = None,
    learning_rate: LearningRate = None,
    labels: Labels = "probabilities",
    zca: Whitened = False,
    factor: Factor = None,
    decoder: Decoder = None,
    ipc: Ipc = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out.")] = False,
    device: Device = "auto",
) -> None:
    """Make a synthetic set of another project's result: res_*.pt, images_best.pt, data.pt, .npz or images."""
    options = data_options(data_option, bias_ratio=bias_ratio)
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must end in .safetensors, not {out.name!r}")
    if out.exists() and not force and not is_stream(out):
        raise ValueError(f"{out} exists; give another place, or --force to replace it")
    check_writable(out)
    imported = api.import_synthetic(
        path,
        format=format,
        dataset=dataset,
        root=data_root,
        data_options=options,
        mean=_numbers("mean", mean),
        std=_numbers("std", std),
        method=method,
        debias=debias,
        arch=arch,
        experiment=experiment,
        iteration=iteration,
        learning_rate=learning_rate,
        labels=labels,
        zca=zca,
        factor=factor,
        decoder=decoder,
        ipc=ipc,
        device=device,
    )
    imported.save(out)
    _describe(imported)
    known = "" if "dataset" in imported.metadata else " --dataset NAME"
    console.print(f"in {out}; evaluate it with: fastdd evaluate {out}{known} --data-root DIR")


def _describe(imported: SyntheticSet) -> None:
    metadata, source = imported.metadata, imported.metadata["source"]
    shape = "x".join(map(str, imported.images.shape[1:]))
    console.print(
        f"{len(imported.images)} images {shape} of {len(metadata['class_names'])} classes, {source['format']}"
    )
    if imported.zca is None:
        mean, std = (", ".join(f"{value:g}" for value in metadata[name]) for name in ("mean", "std"))
        console.print(f"normalised with mean {mean} and std {std}")
    else:
        console.print("whitened by ZCA")
    if imported.learning_rate is not None:
        console.print(f"learned step size {imported.learning_rate:g}")
    if imported.soft_labels is not None:
        console.print("soft labels")
    for model, accuracies in source.get("accuracies", {}).items():
        average = sum(accuracies) / len(accuracies)
        console.print(f"published accuracy on {model}: {average:.2f} %, of {len(accuracies)} networks")
    for note in source["notes"]:
        console.print(f"note: {note}")


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers joined by commas, one a channel."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--{name} must be numbers joined by commas, one a channel, not {text!r}") from None
