"""``fastdd data``."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fastdd import data as datasets
from fastdd import report
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import BiasRatio, Options, Root, ValSplit, data_options
from fastdd.cli.options import DATA, Command, Full, Json, new_app, picture_file
from fastdd.core import files
from fastdd.data import Dataset

app = new_app()

Size = Annotated[
    int | None,
    typer.Option(help="Height and width in pixels, of image files.", show_default=False, rich_help_panel=DATA),
]
GroupsCsv = Annotated[
    Path | None,
    typer.Option(help="folder: path,group rows.", show_default="ROOT/groups.csv if there", rich_help_panel=DATA),
]
SkipCorrupt = Annotated[
    bool | None,
    typer.Option(
        "--skip-corrupt",
        help="Leave out images that can't be decoded, and list them.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
_OWN = "One's own images (folder)"


def _of_own(flag: str, help: str, metavar: str | None = None, default: Any = False) -> Any:
    return typer.Option(flag, help=help, metavar=metavar, show_default=default, rich_help_panel=_OWN)


DataName = Annotated[str | None, _of_own("--name", "What runs and tables call the data set.", default="folder")]
OfTable = Annotated[
    Path | None, _of_own("--table", "Table of images (CSV, TSV, any delimiter): classes, groups, splits.")
]
PathColumn = Annotated[
    str | None,
    _of_own("--path-column", "Its column that names the image, by path or bare name.", default="path"),
]
LabelColumn = Annotated[
    str | None, _of_own("--label-column", "Its column that is the class.", default="folders are classes")
]
GroupColumn = Annotated[
    list[str] | None,
    _of_own("--group-column", "Its column that is the group; several: intersections.", default="group, if there"),
]
SplitColumn = Annotated[str | None, _of_own("--split-column", "Its column that says train, test or validation.")]
UnknownGroup = Annotated[
    str | None, _of_own("--unknown-group", "The group of images without one.", "NAME", default="they are refused")
]
TestSplit = Annotated[
    float | None,
    _of_own("--test-split", "Share of every class and group held out where nothing is for the test.", default="0.2"),
]
Preview = Annotated[
    Path | None,
    typer.Option(
        "--preview",
        help="Picture (PNG) of images of every class and group.",
        show_default=False,
        callback=picture_file,
    ),
]

# Groups that are columns of a table; of more, the extremes are shown.
_MOST_GROUPS = 12
# Of a file, by whether it has the publisher's MD5.
_SAID = {True: ", the publisher's", False: ", not the publisher's: another MD5", None: ""}


@app.callback()
def data() -> None:
    """Data sets: list them, build a packed store, check one."""


@app.command("list", cls=Command)
def list_(json: Json = None) -> None:
    """The data sets by name, with their options and defaults."""
    if json is not None:
        files.check_writable(json)
        rows = [
            {"name": name, "about": about, "options": {one: _plain(value) for one, value in _options(name).items()}}
            for name, about in datasets.available().items()
        ]
        report.write_json(json, report.document(rows))
    table = Table(box=None, show_header=False)
    for name, description in datasets.available().items():
        table.add_row(name, description)
        shown = ", ".join(f"{option}={_shown(default)}" for option, default in _options(name).items())
        if shown:
            table.add_row("", f"options: {shown}")
    console.print(table)


def _options(name: str) -> dict[str, Any]:
    return datasets.options(name)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | None) else str(value)


def _shown(default: Any) -> str:
    return "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


@app.command(cls=Command)
def build(
    name: Annotated[str, typer.Argument(help="Name of the data set (fastdd data list).")],
    out: Annotated[Path, typer.Option(help="Folder of the packed store.")],
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    size: Size = None,
    groups_csv: GroupsCsv = None,
    data_option: Options = None,
    skip_corrupt: SkipCorrupt = None,
    val_split: ValSplit = None,
    table: OfTable = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    group_column: GroupColumn = None,
    split_column: SplitColumn = None,
    unknown_group: UnknownGroup = None,
    test_split: TestSplit = None,
    called: DataName = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode images.", show_default="all cores", min=1)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a build that was stopped; start if none.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the store that is there.")] = False,
    preview: Preview = None,
) -> None:
    """Build a data set into a packed store, which later commands open at once."""
    named = {"bias_ratio": bias_ratio, "size": size, "groups_csv": groups_csv, "skip_corrupt": skip_corrupt}
    own = {
        **{"table": table, "path_column": path_column, "label_column": label_column, "split_column": split_column},
        **{"protected": "+".join(group_column or []) or None, "unknown_group": unknown_group},
        **{"test_split": test_split, "name": called, "val_split": val_split},
    }
    options = data_options(data_option, **named, **own)
    if preview is not None:
        files.check_writable(preview)
    with bar(f"building {name}") as update:
        started: list[tuple[float, int]] = []

        def progress(done: int, total: int) -> None:
            started.append((time.monotonic(), done)) if not started else None
            seconds, first = time.monotonic() - started[0][0], started[0][1]
            update(done, total, "images", (done - first) / seconds if seconds else None)

        built = datasets.build(
            name,
            out,
            data_root,
            options=options,
            overwrite=force,
            resume=resume,
            workers=workers,
            progress=progress,
        )
    _preview(built, preview)
    _remarks(built)
    held = "" if built.validation is None else f", {len(built.validation)} for validation,"
    console.print(f"{built.name}: {len(built.train)} + {len(built.test)} images{held} in {out}")


@app.command(cls=Command)
def check(
    what: Annotated[str, typer.Argument(help="Folder of a packed store, or name of a data set.", metavar="STORE|NAME")],
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    size: Size = None,
    groups_csv: GroupsCsv = None,
    data_option: Options = None,
    skip_corrupt: SkipCorrupt = None,
    val_split: ValSplit = None,
    table: OfTable = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    group_column: GroupColumn = None,
    split_column: SplitColumn = None,
    unknown_group: UnknownGroup = None,
    test_split: TestSplit = None,
    called: DataName = None,
    preview: Preview = None,
    full: Full = False,
) -> None:
    """Check a store's digest, or that a data set's source files are there and whole; print counts per group."""
    named = {"bias_ratio": bias_ratio, "size": size, "groups_csv": groups_csv, "skip_corrupt": skip_corrupt}
    own = {
        **{"table": table, "path_column": path_column, "label_column": label_column, "split_column": split_column},
        **{"protected": "+".join(group_column or []) or None, "unknown_group": unknown_group},
        **{"test_split": test_split, "name": called, "val_split": val_split},
    }
    options = data_options(data_option, **named, **own)
    if preview is not None:
        files.check_writable(preview)
    if what not in datasets.available() and Path(what).is_dir():
        if options:
            raise ValueError(f"{what} is a folder, which has no options: leave out {', '.join(options)}")
        problems = datasets.check_store(what)
        if problems:
            raise RuntimeError(f"{what}: {'; '.join(problems)}")
        opened, published = datasets.open_store(what), None
    else:
        opened, published = datasets.load(what, data_root, **options), datasets.published_counts(what, options)
    _describe(opened, full)
    _remarks(opened)
    if published is not None:
        counts = (len(opened.train), len(opened.test))
        words = "as published" if counts == published else f"published are {published[0]:,} + {published[1]:,}"
        console.print(f"{counts[0]:,} + {counts[1]:,} images; {words}")
    _preview(opened, preview)


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


def _describe(data: Dataset, full: bool) -> None:
    height, width = data.size
    console.print(f"{data.name}: {data.channels}x{height}x{width}, digest {data.digest()}")
    for title, values in (("mean", data.mean), ("std", data.std)):
        console.print(f"{title} {', '.join(f'{value:.4f}' for value in values)}")
    for file in data.provenance.get("files", []):
        if "sha256" in file:
            size = f"{file['bytes']:,} bytes, " if "bytes" in file else ""
            console.print(f"{file['file']}: {size}SHA-256 {file['sha256']}{_SAID[file.get('as_published')]}")
    for name, split in data.splits.items():
        title, counts = (
            f"{name}: {len(split)} images per class and group",
            split.counts(data.num_classes, data.num_groups),
        )
        if data.num_groups > _MOST_GROUPS and not full:
            rows = list(zip(data.class_names, counts.tolist(), strict=True))
            console.print(report.extremes_table(title, rows, data.group_names, "all", "fewest", "most"))
            continue
        table = Table(title=title, title_justify="left")
        table.add_column("class")
        for group in data.group_names:
            table.add_column(group, justify="right")
        for label, row in zip(data.class_names, counts.tolist(), strict=True):
            table.add_row(label, *map(str, row))
        console.print(table)
