"""``fastdd explain``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, report
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, ValSplit, data_options
from fastdd.cli.options import RUN, Command, Device, Json, Seed, new_app
from fastdd.cli.origin import dataset_of_network
from fastdd.core import files
from fastdd.core.settings import given
from fastdd.session.explanation import CLASSES, Explanation
from fastdd.session.trained import network_files, read_network

app = new_app()

_FEATURES, _SALIENCY = "Features", "Saliency"
Networks = Annotated[
    list[Path],
    typer.Argument(
        help="A network's file, or a folder: of fastdd train, or of evaluate --keep-nets, whose networks count as one.",
        metavar="NETWORK...",
    ),
]
Tested = Annotated[int, typer.Option("--features", help="Test images, at most.", min=2, rich_help_panel=_FEATURES)]
Projection = Annotated[
    str | None,
    typer.Option(help="Into the plane, for --out: tsne, pca or none.", show_default="tsne", rich_help_panel=_FEATURES),
]
Images = Annotated[
    int, typer.Option(help="Test images, as many of every class; 0 for none.", min=0, rich_help_panel=_SALIENCY)
]
Of = Annotated[
    str | None,
    typer.Option(
        help=f"Class of an image that saliency is of: {' or '.join(CLASSES)}.",
        show_default="own",
        rich_help_panel=_SALIENCY,
    ),
]
Masks = Annotated[int | None, typer.Option(help="Random masks.", show_default="2000", min=1, rich_help_panel=_SALIENCY)]
Cells = Annotated[
    int | None,
    typer.Option(
        help="Cells of a mask, a side.", show_default="7, or 4 below 64 pixels", min=2, rich_help_panel=_SALIENCY
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for features.png and saliency.png.", show_default="no pictures", rich_help_panel=RUN),
]


@app.command(cls=Command)
def explain(
    networks: Networks,
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    val_split: ValSplit = None,
    data_option: Options = None,
    features: Tested = 2000,
    projection: Projection = None,
    images: Images = 20,
    of: Of = None,
    masks: Masks = None,
    cells: Cells = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = None,
    json: Json = None,
) -> None:
    """What trained networks have learned: features by class and group, and which pixels predictions rest on (RISE)."""
    of_saliency = given({"of": of, "masks": masks, "cells": cells})
    _check_used(projection, out, images, of_saliency)
    if json is not None:
        files.check_writable(json)
    if out is not None:
        files.check_folder(out)
    found_files = [network_files(path) for path in networks]
    of_data = data_options(data_option, bias_ratio=bias_ratio, val_split=val_split)
    data = dataset_of_network(read_network(found_files[0][0]), dataset, data_root, of_data)
    settings = {
        **{"features": features, "images": images, "of": "own", "masks": 2000, "cells": None, **of_saliency},
        **{"seed": seed, "device": device},
    }
    projection = "none" if out is None else projection or "tsne"
    rows, first = [], []
    for alike in found_files:
        explained = _explained(alike, data, projection, settings)
        first.append(explained[0])
        rows.append([report.explanation_row(one, data) for one in explained])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    if projection != "none":
        report.draw_features(first, data, out / "features.png")
    if out is not None and images:
        report.draw_saliency(first, data, out / "saliency.png")
    if json is not None:
        all_rows = [row for alike in rows for row in alike]
        report.write_json(json, report.document(all_rows, dataset_digest=data.digest(), **settings))
    tested = "test images" if data.tested_on == "test" else "held-out training images"
    console.print(report.explanation_table(rows, f"{data.name}, {min(features, len(data.test)):,} {tested}"))
    if out is not None:
        console.print(f"pictures in {out}")


def _check_used(projection: str | None, out: Path | None, images: int, of_saliency: dict[str, Any]) -> None:
    """ValueError for settings of what is not made: a picture without a folder, saliency of no image."""
    if projection not in (None, "none") and out is None:
        raise ValueError(f"--projection {projection} is of features.png: give --out too, or leave it out")
    if images == 0 and of_saliency:
        name, value = next(iter(of_saliency.items()))
        raise ValueError(f"--{name} {value} is of saliency, and --images 0 asks for none: leave it out")


def _explained(alike: Sequence[Path], data: Any, projection: str, settings: dict[str, Any]) -> list[Explanation]:
    """Of all networks of an argument; the plane, which takes longest, of the first only."""
    explained = []
    for number, path in enumerate(alike):
        with bar(f"explaining {path}") as update:
            projected = projection if number == 0 else "none"
            explained.append(api.explain(read_network(path), data, projection=projected, progress=update, **settings))
    return explained
