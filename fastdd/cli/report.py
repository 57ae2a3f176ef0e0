"""``fastdd report``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import data as datasets
from fastdd.cli.console import console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, data_options
from fastdd.cli.options import Command, new_app, page_file
from fastdd.cli.origin import warn_of_other_data
from fastdd.core import files
from fastdd.data import Dataset
from fastdd.report import repeats
from fastdd.report.baselines import read_baselines
from fastdd.report.coverage import ClassCoverage, class_coverage, draw_coverage
from fastdd.report.embeddings import kept_network
from fastdd.report.labels import labels
from fastdd.report.page import TextTable, View, write_page
from fastdd.report.record import Record, read_record
from fastdd.session.folder import store_of_run
from fastdd.session.repeats import runs_of

app = new_app()

NAME, COVERAGE = "report.html", "coverage.png"


Runs = Annotated[
    list[Path],
    typer.Argument(
        help="Folders of runs, repeats or trained networks, finished or not, or synthetic sets.", metavar="RUN..."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="The page.", show_default="RUN/report.html; several: report.html", callback=page_file),
]
Titles = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        help="What a run is called, once for each RUN in their order.",
        show_default="what differs between runs",
        metavar="TEXT",
    ),
]
Baselines = Annotated[
    list[Path] | None,
    typer.Option(
        "--baseline",
        help="Results to see the runs beside, of fastdd evaluate random|whole --json FILE; may be given again.",
        show_default=False,
        metavar="FILE",
    ),
]
Projection = Annotated[str, typer.Option("--embedding", help="Of images in the plane: pca, tsne or none.")]
Features = Annotated[
    str,
    typer.Option(help="By what network: random, or trained on the set (fastdd evaluate --keep-nets RUN/networks)."),
]
Highlight = Annotated[
    str | None,
    typer.Option(
        help="Also what the sets cover of one class, by group: on the page, and as a picture beside it.",
        metavar="CLASS",
        show_default=False,
    ),
]
Images = Annotated[int, typer.Option(help="Synthetic images of a class, at most.", min=1)]
Seed = Annotated[int, typer.Option(help="Which real images are shown.")]


@app.command(cls=Command)
def report(
    runs: Runs,
    out: Out = None,
    name: Titles = None,
    baseline: Baselines = None,
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    embedding: Projection = "pca",
    features: Features = "random",
    highlight: Highlight = None,
    images: Images = 20,
    seed: Seed = 0,
) -> None:
    """Make one HTML page of runs, to read offline: images, losses, figures, groups, embeddings, configuration."""
    options = data_options(data_option, bias_ratio=bias_ratio)
    view = View(embedding, features, images, seed)
    of_seeds, single = _records(runs, _titles(runs, name))
    records = [record for of_run in of_seeds for record in of_run.values()] + single
    if out is None:
        first = records[0].path
        out = first / NAME if len(records) == 1 and first.is_dir() else Path(NAME)
    files.check_writable(out)
    data, why = _dataset(records, dataset, data_root, options)
    about: dict[str, Any] = {"without": why} if why else {}
    about["baselines"] = read_baselines(baseline or (), records)
    if highlight is not None and data is None:
        raise ValueError(f"--highlight needs the data set's images: {why or 'give --dataset'}")
    covered = None if highlight is None else _covered(records, data, highlight, view)
    if covered is not None:
        picture = out.with_name(f"{out.stem}-{COVERAGE}")
        files.check_writable(picture)
        draw_coverage(covered, picture)
        console.print(f"what is covered of class {covered.class_name} in {picture}")
    write_page(out, records, data, view=view, table=_over_seeds(of_seeds), covered=covered, **about)
    if why:
        console.print(f"without real images and embeddings: {why}")
    console.print(f"report in {out}")


def _records(runs: list[Path], titles: dict[Path, str]) -> tuple[list[dict[int, Record]], list[Record]]:
    """What is known of every folder of repeats, by seed, and of every other run."""
    repeated = {run: runs_of(run) for run in runs}
    of_seeds = [
        {seed: replace(read_record(place), title=titles[run]) for seed, place in repeated[run].items()}
        for run in runs
        if repeated[run]
    ]
    return of_seeds, [replace(read_record(run), title=titles[run]) for run in runs if not repeated[run]]


def _titles(runs: list[Path], names: list[str] | None) -> dict[Path, str]:
    """What runs are called; nothing where no names are given."""
    if not names:
        return dict.fromkeys(runs, "")
    if len(names) != len(runs) or len(set(runs)) < len(runs):
        raise ValueError(f"{len(names)} --name for {len(set(runs))} runs: give one for each RUN, in their order")
    for name in names:
        if not name.strip() or names.count(name) > 1:
            raise ValueError(f"--name {name!r} tells no run from the others: give each RUN a name of its own")
    return dict(zip(runs, names, strict=True))


def _covered(records: list[Record], data: Dataset, name: str, view: View) -> ClassCoverage:
    if view.embedding == "none":
        raise ValueError("--highlight shows images in the plane: --embedding pca or tsne")
    trained = view.features == "trained"
    sets = [
        (shown, record.synthetic, kept_network(record) if trained else None)
        for shown, record in zip(labels(records), records, strict=True)
        if record.synthetic is not None
    ]
    if not sets:
        raise ValueError("--highlight shows synthetic sets, and no run has one yet")
    return class_coverage(sets, data, name, projection=view.embedding, seed=view.seed)


def _over_seeds(of_seeds: list[dict[int, Record]]) -> TextTable | None:
    """What holds over the distillations of folders of repeats; None where none was evaluated with two seeds."""
    rows = [{seed: record.rows_of_set for seed, record in records.items()} for records in of_seeds]
    several = [kind for of_folder in rows for kind in repeats.kinds(of_folder) if len(kind) > 1]
    if not several:
        return None
    note = f"Percent: mean {repeats.WHAT_COVERS}. A difference is at equal seeds, in points of percent."
    picture = repeats.repeats_bars(several)
    pictures = [("95 % intervals over distillations, as far as they lie in 0 to 100 %", picture)] if picture else []
    return TextTable("Repeated distillations", note, repeats.repeats_header(), repeats.repeats_lines(several), pictures)


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
            data = datasets.load(*stores)
            for record in records:
                if record.synthetic is not None:
                    warn_of_other_data(data, record.synthetic.metadata.get("dataset_digest"), record.path)
            return data, ""
        if name not in datasets.available():
            synthetic = records[0].synthetic
            known = None if synthetic is None else datasets.registered_name(synthetic.metadata)
            if known is None:
                why = f"the runs are of {name!r}, which is no data set's name here: give --dataset STORE"
                if asked:
                    raise ValueError(why)
                return None, why
            name = known
    try:
        return datasets.load(name, root, **records[0].data_options(name) | options), ""
    except (ValueError, OSError) as error:
        if asked:
            raise
        return None, str(error)
