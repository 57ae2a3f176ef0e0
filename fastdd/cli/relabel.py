"""``fastdd relabel``."""

from pathlib import Path
from typing import Annotated

import typer

from fastdd import api
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, data_options
from fastdd.cli.evaluate import Teacher
from fastdd.cli.options import EVALUATION, RUN, Command, Config, Device, new_app
from fastdd.cli.origin import with_dataset

app = new_app()

Target = Annotated[str, typer.Argument(help="Run folder or synthetic set.", metavar="RUN|FILE")]
Out = Annotated[Path | None, typer.Option(help="File.", show_default="RUN/labels.safetensors", rich_help_panel=RUN)]
Epochs = Annotated[
    int | None,
    typer.Option(help="Epochs to store.", show_default="300", min=1, rich_help_panel=EVALUATION),
]
Seed = Annotated[int, typer.Option(help="Every view is a function of it.", rich_help_panel=EVALUATION)]


@app.command(cls=Command)
def relabel(
    target: Target,
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    teacher: Teacher = None,
    epochs: Epochs = None,
    seed: Seed = 0,
    out: Out = None,
    config: Config = None,
    device: Device = "auto",
) -> None:
    """Store a teacher's labels of all that protocol rded trains on; evaluate --labels uses them."""
    synthetic = api.load_synthetic(target)
    data = with_dataset(target, synthetic, dataset, data_root, data_options(data_option, bias_ratio=bias_ratio))
    folder = Path(target) if Path(target).is_dir() else Path(target).parent
    out = out or folder / "labels.safetensors"
    with bar(f"labels of {target}") as update:
        made = api.relabel(
            synthetic, data, out=out, teacher=teacher, epochs=epochs, seed=seed, device=device, progress=update
        )
    size = out.stat().st_size
    told = f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"
    console.print(
        f"{made.epochs} epochs of {made.images} images in {made.classes} classes, {told} in {out}: "
        f"fastdd evaluate {target} --protocol rded --labels {out}"
    )
