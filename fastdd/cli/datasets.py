"""``fastdd data``."""

from pathlib import Path
from typing import Any

from rich.table import Table

from fastdd import data as datasets
from fastdd.cli.console import console
from fastdd.data import Dataset


def run_list() -> None:
    table = Table(box=None, show_header=False)
    for name, description in datasets.available().items():
        table.add_row(name, description)
    console.print(table)


def run_build(name: str, *, out: Path, force: bool, **options: Any) -> None:
    data = datasets.load(name, **options)
    datasets.save_store(data, out, overwrite=force)
    console.print(f"{data.name}: {len(data.train)} + {len(data.test)} images in {out}")


def run_check(what: str, *, root: Path | None) -> None:
    if Path(what).is_dir():
        problems = datasets.check_store(what)
        if problems:
            raise RuntimeError(f"{what}: {'; '.join(problems)}")
        data = datasets.open_store(what)
    else:
        data = datasets.load(what, root)
    _describe(data)


def _describe(data: Dataset) -> None:
    height, width = data.size
    console.print(f"{data.name}: {data.channels}x{height}x{width}, digest {data.digest()}")
    for name, split in (("train", data.train), ("test", data.test)):
        table = Table(title=f"{name}: {len(split)} images per class and group", title_justify="left")
        table.add_column("class")
        for group in data.group_names:
            table.add_column(group, justify="right")
        counts = split.counts(data.num_classes, data.num_groups).tolist()
        for label, row in zip(data.class_names, counts, strict=True):
            table.add_row(label, *map(str, row))
        console.print(table)
