"""``fastdd demo``: what bias does to a distilled set, and what can be done about it, on embedded real digits."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fastdd import data as datasets
from fastdd import report
from fastdd.api import pick_device
from fastdd.cli.console import console
from fastdd.cli.distill import distill_with_bar
from fastdd.cli.options import Command, Device, Json, Seed, new_app
from fastdd.cli.results import evaluate_with_bar, print_results
from fastdd.core import files
from fastdd.core.space import check_room
from fastdd.report.page import View, write_page
from fastdd.report.record import read_record

app = new_app()

_IPC, _NETS, _EPOCHS, _WHOLE_EPOCHS = 10, 3, 200, 40
# Of a set, its picture, and its share of the page.
_BYTES_A_SET = 2 << 20
_SETS = [("dm", "none"), ("dm", "fairdd")]
_FULL_SETS = [*_SETS, ("dm", "kde"), ("dc", "none"), ("dc", "fairdd")]


@app.command(cls=Command)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs and pictures.")] = Path("runs/demo"),
    full: Annotated[
        bool, typer.Option("--full", help="Also DC, DC+FairDD and DM+KDE: under six minutes on two cores.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Distil embedded, colour-biased digits with DM and DM+FairDD, and compare; under two minutes on two cores."""
    pick_device(device)  # before any output
    if json is not None:
        files.check_writable(json)
    # Runs of the demo replace each other, so these are no run folders, which refuse that.
    folders = {kind: out / "-".join(kind) for kind in (_FULL_SETS if full else _SETS)}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    check_room(out, len(folders) * _BYTES_A_SET, "the demo")
    began = time.perf_counter()
    data = datasets.load("c-digits")
    console.print(
        f"c-digits: {len(data.train)} real digits in ten colours, 90 % of each class in its own; "
        f"test set: {len(data.test)}, every digit in every colour. "
        f"Distilling {_IPC} images per class, {len(folders)} times, and training {_NETS} networks on each set."
    )
    rows = []

    def add(what, method: str, debias: str = "none", **settings) -> None:
        result = evaluate_with_bar(what, data, f"evaluating {method}", seed=seed, device=device, **settings)
        ipc = None if method == "whole" else _IPC
        rows.append(report.result_row(result, dataset=data.name, method=method, debias=debias, ipc=ipc))

    add("whole", "whole", nets=1, epochs=_WHOLE_EPOCHS)
    add("random", "random", ipc=_IPC, nets=_NETS, epochs=_EPOCHS)
    for (method, debias), folder in folders.items():
        synthetic = distill_with_bar(
            data,
            f"{method} {debias}",
            method=method,
            debias=debias,
            ipc=_IPC,
            seed=seed,
            device=device,
        )
        synthetic.save(folder / "synthetic.safetensors")
        report.preview(synthetic, folder / "preview.png")
        add(synthetic, method, debias, nets=_NETS, epochs=_EPOCHS)
        report.write_json(folder / report.RESULT, report.document(rows[-1:], dataset_digest=data.digest()))
    if json is not None:
        report.write_json(json, report.document(rows, dataset_digest=data.digest()))
    page = out / "report.html"
    write_page(
        page, [read_record(folder) for folder in folders.values()], data, view=View(seed=seed), baselines=rows[:2]
    )
    print_results(rows, "c-digits, test set, %, mean ± standard deviation over networks")
    console.print(f"images, groups and embeddings side by side: {page}")
    console.print("synthetic images: " + ", ".join(str(folder / "preview.png") for folder in folders.values()))
    console.print(f"{time.perf_counter() - began:.0f} s")
