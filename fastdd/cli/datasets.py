"""``fastdd data``."""

import contextlib
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from fastdd import data as datasets
from fastdd.cli.console import console
from fastdd.data import Dataset


def data_options(pairs: list[str] | None, **named: Any) -> dict[str, Any]:
    """The data set's options: those with an option of their own (None: not given), and ``NAME=VALUE`` pairs.

    Raises:
        ValueError: a pair that is none, or an option given twice.
    """
    options = {name: value for name, value in named.items() if value is not None}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(f"--data-option must be NAME=VALUE, not {pair!r}")
        if name in options:
            raise ValueError(f"the data set's {name} is given twice")
        options[name] = _value(text)
    return options


def _value(text: str) -> Any:
    """A YAML scalar; also a number such as 5e-3, which YAML 1.1 takes for a word."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    # Anything but a scalar, and nothing at all, is a word.
    if not isinstance(value, bool | int | float | str):
        value = text
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value) if value[:1] in "+-.0123456789" else value
    return value


def run_list() -> None:
    table = Table(box=None, show_header=False)
    for name, description in datasets.available().items():
        table.add_row(name, description)
        shown = ", ".join(f"{option}={_shown(default)}" for option, default in datasets.options(name).items())
        if shown:
            table.add_row("", f"options: {shown}")
    console.print(table)


def _shown(default: Any) -> str:
    return "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def run_build(name: str, *, out: Path, force: bool, root: Path | None, options: dict[str, Any]) -> None:
    data = datasets.load(name, root, **options)
    datasets.save_store(data, out, overwrite=force)
    console.print(f"{data.name}: {len(data.train)} + {len(data.test)} images in {out}")


def run_check(what: str, *, root: Path | None, options: dict[str, Any]) -> None:
    if Path(what).is_dir():
        if options:
            raise ValueError(f"{what} is a folder, which has no options: leave out {', '.join(options)}")
        problems = datasets.check_store(what)
        if problems:
            raise RuntimeError(f"{what}: {'; '.join(problems)}")
        data = datasets.open_store(what)
    else:
        data = datasets.load(what, root, **options)
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
