"""``fastdd report``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import data as datasets
from fastdd.cli.console import console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, data_options
from fastdd.cli.options import Command, new_app, output_file
from fastdd.core import files
from fastdd.data import Dataset
from fastdd.report.page import View, write_page
from fastdd.report.record import Record, read_record
from fastdd.session.folder import store_of_run

app = new_app()

NAME = "report.html"


@app.command(cls=Command)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs or trained networks, finished or not, or synthetic sets.", metavar="RUN..."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The page.", show_default="RUN/report.html; several: report.html", callback=output_file),
    ] = None,
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    embedding: Annotated[str, typer.Option(help="Of images in the plane: pca, tsne or none.")] = "pca",
    features: Annotated[
        str,
        typer.Option(help="By what network: random, or trained on the set (fastdd evaluate --keep-nets RUN/networks)."),
    ] = "random",
    images: Annotated[int, typer.Option(help="Synthetic images of a class, at most.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Which real images are shown.")] = 0,
) -> None:
    """Make one HTML page of runs, to read offline: images, losses, figures, groups, embeddings, configuration."""
    options = data_options(data_option, bias_ratio=bias_ratio)
    view = View(embedding, features, images, seed)
    records = [read_record(run) for run in runs]
    if out is None:
        first = records[0].path
        out = first / NAME if len(records) == 1 and first.is_dir() else Path(NAME)
    files.check_writable(out)
    data, why = _dataset(records, dataset, data_root, options)
    write_page(out, records, data, view=view, **({"without": why} if why else {}))
    if why:
        console.print(f"without real images and embeddings: {why}")
    console.print(f"report in {out}")


def _dataset(
    records: list[Record], name: str | None, root: Path | None, options: dict[str, Any]
) -> tuple[Dataset | None, str]:
    """The runs' data set, and, where it can't be had and was not asked for, why not."""
    asked = name is not None or root is not None or bool(options)
    if not asked and all(record.history is not None for record in records):
        return None, ""  # pages of trainings show no images
    names = {record.dataset for record in records} - {None}
    if name is None:
        if len(names) != 1:
            why = f"the runs are of several data sets ({', '.join(sorted(names))})" if names else "no run names its own"
            if asked:
                raise ValueError(f"{why}: give --dataset")
            return None, why
        (name,) = names
        stores = {store_of_run(record.path) for record in records}
        if len(stores) == 1 and not asked and None not in stores and datasets.is_store(*stores):
            return datasets.load(*stores), ""
    try:
        return datasets.load(name, root, **records[0].data_options(name) | options), ""
    except (ValueError, OSError) as error:
        if asked:
            raise
        return None, str(error)
