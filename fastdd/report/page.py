"""One self-contained HTML page of a run, or of several side by side: no scripts from elsewhere, no network."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files as resources
from typing import Any

from markupsafe import Markup

from fastdd.core import files
from fastdd.core.text import printable
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import METRICS, in_order_of
from fastdd.evaluation.audit import Audit
from fastdd.report import charts, sections
from fastdd.report.audit import LEGEND, audit_lines, audit_summary, loss_lines
from fastdd.report.course import course
from fastdd.report.coverage import ClassCoverage
from fastdd.report.embeddings import Embedding, kept_network, of_random_network, of_trained_network
from fastdd.report.labels import labels
from fastdd.report.labels import title as title_of
from fastdd.report.ranking import ranking_tables
from fastdd.report.record import Record
from fastdd.report.results import networks
from fastdd.report.tiles import MOST_CLASSES, group_marks, snapshot_tiles, synthetic_tiles
from fastdd.report.training import training_charts

DEFINITIONS = {
    "accuracy": ("accuracy", "right predictions, of all test images"),
    "deo_m": ("DEO_M", "largest gap, over classes, between the accuracies of its groups; 0 is fair"),
    "deo_a": ("DEO_A", "mean of that gap over classes; 0 is fair"),
    "wa": ("WA", "accuracy of the worst class in the worst group"),
    "ba": ("BA", "mean accuracy over all (class, group) pairs, each counting alike"),
}
EMBEDDINGS = ("pca", "tsne", "none")
FEATURES = ("random", "trained")
_NOT_GIVEN = "no data set was given"


@dataclass(frozen=True)
class TextTable:
    """A table for a page: its title, a note below, titles of columns (the first two are names), lines, and charts, each
    its title and its SVG."""

    title: str
    note: str
    header: list[str]
    lines: list[list[str]]
    charts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class View:
    """What a page shows of runs.

    Attributes:
        embedding: of features in the plane: ``pca``, ``tsne`` (slower, clusters come out clearer) or ``none``.
        features: of what network: ``random``, one random ConvNet, which is what distribution matching matches, or
            ``trained``, one that was trained on the run's set and kept in the run's folder, of test images.
        images: synthetic images that are shown of a class, at most.
        seed: which real images are shown.

    Raises:
        ValueError: another embedding or features, or no images.
    """

    embedding: str = "pca"
    features: str = "random"
    images: int = 20
    seed: int = 0

    def __post_init__(self):
        for name, known in (("embedding", EMBEDDINGS), ("features", FEATURES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.images < 1:
            raise ValueError(f"images must be at least 1 a class, not {self.images}")


def write_page(
    path: str | os.PathLike,
    records: Sequence[Record],
    dataset: Dataset | None = None,
    *,
    view: View | None = None,
    table: TextTable | None = None,
    covered: ClassCoverage | None = None,
    baselines: Sequence[dict[str, Any]] | None = None,
    without: str = _NOT_GIVEN,
) -> None:
    """Write the page of ``records``, atomically; see :func:`page`."""
    text = page(records, dataset, view=view, table=table, covered=covered, baselines=baselines, without=without)
    files.write_text(path, text)


def page(
    records: Sequence[Record],
    dataset: Dataset | None = None,
    *,
    view: View | None = None,
    table: TextTable | None = None,
    covered: ClassCoverage | None = None,
    baselines: Sequence[dict[str, Any]] | None = None,
    without: str = _NOT_GIVEN,
) -> str:
    """The page's HTML.

    Results with their definitions beside those of baselines, loss over steps, accuracy over iterations where a run was
    evaluated on the way; synthetic images by class beside real ones (click, or Enter, enlarges one); of every run the
    accuracy of every class in every group with its number of test images, weights of KDE reweighting, what an audit
    found, embeddings of real and synthetic images by class and by group, configuration, versions and times; of a
    network's training, loss and figures on validation images over epochs, and what bias-conflicting images count;
    several records are compared, and called by what differs (:func:`fastdd.report.labels.labels`). Light or dark as the
    reader's system is; as wide as the screen or the paper.

    Args:
        records: runs, finished or not, synthetic sets, or trainings of networks.
        dataset: their data set, for real images and embeddings; without it these are left out, and the page says so.
        view: what is shown of runs and how; by default as :class:`View` has it.
        table: to stand first, under its own title.
        covered: what the runs' sets cover of a class (:func:`fastdd.report.coverage.class_coverage`).
        baselines: results (:func:`fastdd.report.result_row`) to see those of the records beside; where there are none,
            the page says how to make some. None: nor that.
        without: why there is no data set.

    Raises:
        ValueError: no records, or a synthetic set that does not fit the data set.
        FileNotFoundError: features of trained networks, and a run that has none.
    """
    from jinja2 import Environment, StrictUndefined

    if not records and table is None:
        raise ValueError("a report needs at least one run")
    view = view or View()
    for record in records:
        if dataset is not None and record.synthetic is not None:
            _check_fits(record, dataset)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= {"figure": _figure, "networks": networks, "labelled": _labelled}
    runs = [_about(record, name, dataset, view) for name, record in zip(labels(records), records, strict=True)]
    shown = {
        "title": table.title if table else title_of(records, [run["name"] for run in runs]),
        **{"table": table, "runs": runs, "several": len(runs) > 1, "metrics": METRICS, "definitions": DEFINITIONS},
        **sections.results(runs, list(baselines or ()), chart=table is None),
        "advice": sections.advice(runs) if baselines == [] else "",
        "losses": sections.losses(runs),
        "course": course(records, baselines or ()),
        "covered": covered,
        "training": training_charts([(run["name"], run["history"]) for run in runs if run["history"]], DEFINITIONS),
        "validated": any("wa" in row for run in runs for row in run["history"] or ()),
        "weighted": any("weights" in row for run in runs for row in run["history"] or ()),
        "images": sections.images(runs, dataset, view.seed),
        **{"dataset": dataset, "without": without.rstrip("."), "style": _style(), "script": _resource("page.js")},
    }
    template = environment.from_string(_resource("page.html.j2"))
    return template.render(**shown, contents=sections.contents(shown)).lstrip()


def _shown(value: Any) -> Any:
    return printable(value) if type(value) is str else value  # Markup is the page's


@cache
def _resource(name: str) -> str:
    return (resources("fastdd.report") / name).read_text(encoding="utf-8")


def _style() -> str:
    light, dark = charts.scheme(dark=False), charts.scheme(dark=True)
    return _resource("page.css").replace("@light@", light).replace("@dark@", dark)


def _labelled(picture: str, label: str) -> Markup:
    """A chart whose picture, not its legend, is read out as what ``label`` says."""
    name = escape(printable(label), quote=True)
    return Markup(picture.replace("<svg", f'<svg role="img" aria-label="{name}"', 1))


def _figure(figure: dict[str, float | None], nets: int) -> str:
    if figure["mean"] is None:
        return "-"
    return f"{figure['mean']:.1f}" + (f" ± {figure['std']:.1f}" if nets > 1 else "")


def _check_fits(record: Record, dataset: Dataset) -> None:
    made = record.synthetic
    shape, names = tuple(made.images.shape[1:]), made.metadata["class_names"]
    own = (dataset.channels, *dataset.size)
    if shape != own or len(names) != dataset.num_classes:
        raise ValueError(
            f"{record.path} has images of {'x'.join(map(str, shape))} in {len(names)} classes, "
            f"{dataset.name} {'x'.join(map(str, own))} in {dataset.num_classes}"
        )
    in_order_of(dataset, made)


def _about(record: Record, name: str, dataset: Dataset | None, view: View) -> dict[str, Any]:
    made = record.synthetic
    rows = record.rows_of_set
    diagnostics = (made.metadata.get("kde") or {}).get("diagnostics") if made is not None else None
    # Beside real images, and in what was evaluated on them, a class has the data set's number.
    shown = made if made is None or dataset is None else in_order_of(dataset, made)
    return {
        "name": name,
        "title": record.title,
        "snapshots": snapshot_tiles(record.snapshots),
        "path": str(record.path),
        "unfinished": record.unfinished,
        "classes": synthetic_tiles(shown, record.audit, view.images) if shown is not None else [],
        "marks": group_marks(record.audit),
        "audit": _audit(record.audit),
        "ranking": ranking_tables(record.ranking),
        "hidden": 0 if made is None else max(0, len(made.metadata["class_names"]) - MOST_CLASSES),
        "losses": record.losses,
        "evaluations": record.evaluations,
        "history": record.history,
        "rows": rows,
        "stale": len(record.rows) - len(rows),
        **sections.heat(record, dataset),
        "weights": _weights(diagnostics, made.metadata["class_names"]) if diagnostics else [],
        "embeddings": _embeddings(record, shown, dataset, view)
        if shown is not None and dataset is not None and view.embedding != "none"
        else None,
        "config": {name: value for name, value in record.config.items() if value is not None},
        "learned": {} if made is None else _learned(made),
        "versions": {} if made is None else made.metadata.get("versions", {}),
        # A run that was not evaluated has a file of results too, with what made its set.
        "meta": {name: record.meta[name] for name in record.meta if name not in ("argv", "dataset_digest")}
        if rows
        else {},
    }


def _learned(made: SyntheticSet) -> dict[str, str]:
    found = {"images": f"{len(made.images):,} of {'x'.join(map(str, made.images.shape[1:]))}"}
    if made.learning_rate is not None:
        found["learned step size"] = f"{made.learning_rate:.4g}"
    if made.soft_labels is not None:
        found["labels"] = "soft"
    if made.zca is not None:
        found["whitening"] = "ZCA"
    if made.formation > 1:
        found["multi-formation"] = f"{made.formation} x {made.formation} images in each"
    return found


def _audit(audit: Audit | None) -> dict[str, Any]:
    """The audit's tables and lines; empty without one."""
    if audit is None:
        return {}
    tables = [("Classes", *audit_lines(audit)), ("Matching losses, mean over random networks", *loss_lines(audit))]
    return {"lines": [*audit_summary(audit), *audit.doubts], "tables": tables, "legend": LEGEND}


def _weights(diagnostics: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    mass, share = (diagnostics.get(name) or [None] * len(names) for name in ("conflict_mass", "conflict_share"))
    columns = zip(names, diagnostics["counts"], diagnostics["ess"], share, mass, strict=True)
    return [dict(zip(("class", "images", "ess", "share", "mass"), row, strict=True)) for row in columns]


def _embeddings(record: Record, made: SyntheticSet, dataset: Dataset, view: View) -> Embedding:
    if view.features == "random":
        return of_random_network(made, dataset, view.embedding, view.seed)
    return of_trained_network(made, kept_network(record), dataset, view.embedding, view.seed)
