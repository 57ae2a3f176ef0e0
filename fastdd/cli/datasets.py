"""``fastdd data``."""

import contextlib
import time
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from fastdd import data as datasets
from fastdd import report
from fastdd.cli.console import bar, console
from fastdd.core import files
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


# Of a file, by whether it has the publisher's MD5.
_SAID = {True: ", the publisher's", False: ", not the publisher's: another MD5", None: ""}


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


def run_build(
    name: str,
    *,
    out: Path,
    force: bool,
    resume: bool,
    workers: int | None,
    root: Path | None,
    options: dict[str, Any],
    preview: Path | None,
) -> None:
    if preview is not None:
        files.check_writable(preview)
    with bar(f"building {name}") as update:
        started: list[tuple[float, int]] = []

        def progress(done: int, total: int) -> None:
            started.append((time.monotonic(), done)) if not started else None
            seconds, first = time.monotonic() - started[0][0], started[0][1]
            update(done, total, "images", (done - first) / seconds if seconds else None)

        data = datasets.build(
            name,
            out,
            root,
            options=options,
            overwrite=force,
            resume=resume,
            workers=workers,
            progress=progress,
        )
    _remarks(data)
    console.print(f"{data.name}: {len(data.train)} + {len(data.test)} images in {out}")
    _preview(data, preview)


def run_check(what: str, *, root: Path | None, options: dict[str, Any], preview: Path | None) -> None:
    if preview is not None:
        files.check_writable(preview)
    if what not in datasets.available() and Path(what).is_dir():
        if options:
            raise ValueError(f"{what} is a folder, which has no options: leave out {', '.join(options)}")
        problems = datasets.check_store(what)
        if problems:
            raise RuntimeError(f"{what}: {'; '.join(problems)}")
        data, published = datasets.open_store(what), None
    else:
        data, published = datasets.load(what, root, **options), datasets.published_counts(what, options)
    _describe(data)
    _remarks(data)
    if published is not None:
        found = (len(data.train), len(data.test))
        words = "as published" if found == published else f"published are {published[0]:,} + {published[1]:,}"
        console.print(f"{found[0]:,} + {found[1]:,} images; {words}")
    _preview(data, preview)


def _remarks(data: Dataset) -> None:
    """What the data set says of its source: what is missing, other than published, or left out."""
    for remark in data.provenance.get("remarks", []):
        console.print(remark)
    skipped = data.provenance.get("skipped", [])
    for line in skipped:
        console.print(f"left out: {line}")
    if skipped:
        console.print(f"{len(skipped)} corrupt image{'s' if len(skipped) > 1 else ''} left out")


def _preview(data: Dataset, path: Path | None) -> None:
    if path is not None:
        report.preview_dataset(data, path)
        console.print(f"picture in {path}: a class a row, a group a column")


def _describe(data: Dataset) -> None:
    height, width = data.size
    console.print(f"{data.name}: {data.channels}x{height}x{width}, digest {data.digest()}")
    for title, values in (("mean", data.mean), ("std", data.std)):
        console.print(f"{title} {', '.join(f'{value:.4f}' for value in values)}")
    for file in data.provenance.get("files", []):
        if "sha256" in file:
            size = f"{file['bytes']:,} bytes, " if "bytes" in file else ""
            console.print(f"{file['file']}: {size}SHA-256 {file['sha256']}{_SAID[file.get('as_published')]}")
    for name, split in (("train", data.train), ("test", data.test)):
        table = Table(title=f"{name}: {len(split)} images per class and group", title_justify="left")
        table.add_column("class")
        for group in data.group_names:
            table.add_column(group, justify="right")
        counts = split.counts(data.num_classes, data.num_groups).tolist()
        for label, row in zip(data.class_names, counts, strict=True):
            table.add_row(label, *map(str, row))
        console.print(table)
