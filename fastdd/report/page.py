"""One self-contained HTML page of a run, or of several side by side: no scripts from elsewhere, no network."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources
from typing import Any

from fastdd.core import files
from fastdd.core.text import printable
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import METRICS, in_order_of
from fastdd.evaluation.audit import Audit
from fastdd.report import charts
from fastdd.report.audit import LEGEND, audit_lines, audit_summary, loss_lines
from fastdd.report.course import course, names_of
from fastdd.report.coverage import ClassCoverage
from fastdd.report.embeddings import Embedding, kept_network, of_random_network, of_trained_network
from fastdd.report.record import Record
from fastdd.report.results import networks, notes, set_name
from fastdd.report.tiles import MOST_CLASSES, group_marks, real_tiles, snapshot_tiles, synthetic_tiles
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
    without: str = _NOT_GIVEN,
) -> None:
    """Write the page of ``records``, atomically; see :func:`page`."""
    files.write_text(path, page(records, dataset, view=view, table=table, covered=covered, without=without))


def page(
    records: Sequence[Record],
    dataset: Dataset | None = None,
    *,
    view: View | None = None,
    table: TextTable | None = None,
    covered: ClassCoverage | None = None,
    without: str = _NOT_GIVEN,
) -> str:
    """The page's HTML.

    Synthetic images by class (click, or Enter, enlarges one beside real ones), results with their definitions, loss
    over steps, accuracy over iterations where a run was evaluated on the way, accuracy of every class in every group,
    weights of KDE reweighting, what an audit found, with the group of every synthetic image, embeddings of real and
    synthetic images by class and by group, configuration, versions and times; of a network's training, loss and figures
    on validation images over epochs, and what bias-conflicting images count; several records are compared.

    Args:
        records: runs, finished or not, synthetic sets, or trainings of networks.
        dataset: their data set, for real images and embeddings; without it these are left out, and the page says so.
        view: what is shown of runs and how; by default as :class:`View` has it.
        table: to stand first, under its own title.
        covered: what the runs' sets cover of a class (:func:`fastdd.report.coverage.class_coverage`).
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
    environment.filters |= {"figure": _figure, "networks": networks, "set_name": set_name}
    runs = [_about(record, name, dataset, view) for name, record in zip(names_of(records), records, strict=True)]
    losses = [(run["name"], run["losses"]) for run in runs if run["history"] is None]
    return environment.from_string(_template()).render(
        title=table.title if table else " and ".join(dict.fromkeys(record.name for record in records)),
        table=table,
        runs=runs,
        several=len(runs) > 1,
        metrics=METRICS,
        definitions=DEFINITIONS,
        results=[(run, row) for run in runs for row in run["rows"]],
        notes=notes([row for run in runs for row in run["rows"]]),
        losses=charts.curves(losses, x="step", y="loss") if any(points for _, points in losses) else "",
        course=course(records),
        covered=covered,
        training=training_charts([(run["name"], run["history"]) for run in runs if run["history"]], DEFINITIONS),
        validated=any("wa" in row for run in runs for row in run["history"] or ()),
        weighted=any("weights" in row for run in runs for row in run["history"] or ()),
        real=real_tiles(dataset, view.seed) if dataset is not None else {},
        dataset=dataset,
        without=without.rstrip("."),
    )


def _shown(value: Any) -> Any:
    return printable(value) if type(value) is str else value  # Markup is the page's


@cache
def _template() -> str:
    return (resources("fastdd.report") / "page.html.j2").read_text(encoding="utf-8")


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
    diagnostics = (made.metadata.get("kde") or {}).get("diagnostics") if made is not None else None
    # Beside real images, and in what was evaluated on them, a class has the data set's number.
    shown = made if made is None or dataset is None else in_order_of(dataset, made)
    return {
        "name": name,
        "seed": name[len(record.name) :],
        "snapshots": snapshot_tiles(record.snapshots),
        "path": str(record.path),
        "unfinished": record.unfinished,
        "classes": synthetic_tiles(shown, record.audit, view.images) if shown is not None else [],
        "marks": group_marks(record.audit),
        "audit": _audit(record.audit),
        "hidden": 0 if made is None else max(0, len(made.metadata["class_names"]) - MOST_CLASSES),
        "losses": record.losses,
        "evaluations": record.evaluations,
        "history": record.history,
        "rows": record.rows,
        "groups": _group_names(record, dataset),
        "row_names": _row_names(record, dataset),
        "weights": _weights(diagnostics, made.metadata["class_names"]) if diagnostics else [],
        "embeddings": _embeddings(record, shown, dataset, view)
        if shown is not None and dataset is not None and view.embedding != "none"
        else None,
        "config": {name: value for name, value in record.config.items() if value is not None},
        "learned": {} if made is None else _learned(made),
        "versions": {} if made is None else made.metadata.get("versions", {}),
        # A run that was not evaluated has a file of results too, with what made its set.
        "meta": {name: record.meta[name] for name in record.meta if name not in ("argv", "dataset_digest")}
        if record.rows
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


def _group_names(record: Record, dataset: Dataset | None) -> list[str]:
    if not record.rows:
        return []
    count = len(record.rows[-1]["group_accuracy"][0])
    known = record.rows[-1].get("group_names")
    if isinstance(known, list) and len(known) == count:
        return known
    if dataset is not None and dataset.num_groups == count:
        return list(dataset.group_names)
    return [f"group {number}" for number in range(count)]


def _row_names(record: Record, dataset: Dataset | None) -> list[str]:
    """Of the classes of the last evaluation, whose order is that of the data set that it was on, not the set's."""
    if not record.rows:
        return []
    count = len(record.rows[-1]["group_accuracy"])
    for known in (record.rows[-1].get("class_names"), dataset and dataset.class_names, _own_names(record)):
        if isinstance(known, list | tuple) and len(known) == count:
            return list(known)
    return [f"class {number}" for number in range(count)]


def _own_names(record: Record) -> list[str] | None:
    """The set's, where its classes have the order of the data set that it was made from: not of an imported one."""
    made = record.synthetic
    return None if made is None or "source" in made.metadata else made.metadata["class_names"]


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
