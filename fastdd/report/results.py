"""Evaluation results as rows: one stable JSON schema, one table."""

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastdd.core import files, reading
from fastdd.core.text import shown
from fastdd.core.version import __version__
from fastdd.evaluation import METRICS, Evaluation, EvaluationPlan, Protocol
from fastdd.models import canonical_name

if TYPE_CHECKING:
    from rich.table import Table

    from fastdd.session.trained import TrainedNetwork
    from fastdd.training import TrainSettings

SCHEMA = 1
RESULT = "result.json"  # of a run's folder: every evaluation of it
# Rows of a table that a reader takes in.
_MOST_CLASSES, _MOST_GROUPS = 30, 12
# Of evaluations on the way.
CURVE_METRICS = ("accuracy", "deo_m", "deo_a")
TITLES = {"accuracy": "accuracy", "deo_m": "DEO_M", "deo_a": "DEO_A", "wa": "WA", "ba": "BA"}


def result_row(
    evaluation: Evaluation,
    *,
    dataset: str,
    method: str,
    debias: str,
    ipc: int | None,
    deo: str = "range",
    protocol: str | None = None,
    trained: str | None = None,
    digests: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """One result: what was evaluated, and mean, standard deviation and 95 % interval of every figure, in percent.

    ``protocol`` is the published one that was asked for by name, if any. ``ipc`` is None for the whole training set.
    ``tested_on`` is ``test``, or ``validation`` for held-out training images.
    ``warnings``, a list of lines, is there only where there are some.
    ``width`` and ``depth`` are the networks' where they are in place of the name's.
    ``group_accuracy`` is the [C][G] matrix of mean accuracies, ``group_images`` that of numbers of test images;
    ``epochs``, ``learning_rate``, ``dsa_strategy``,
    ``dc_strategy``, ``seed`` and ``deo`` say how the figures came about, ``training`` and ``constants``
    the recipe where it is not plain, ``groups_from`` whose groups it looked at. ``trained`` is how the networks that
    the set was matched on, or the experts that it follows, were trained, where they were (:func:`trained_networks`).
    ``digests``, where they are given, are of what: ``set_digest``, ``dataset_digest``.
    """
    return {
        "dataset": dataset,
        "method": method,
        "debias": debias,
        "ipc": ipc,
        **({} if trained is None else {"trained": trained}),
        **_network(evaluation),
        "nets": len(evaluation.counts),
        **evaluation.summary(deo),
        **({"warnings": list(evaluation.warnings)} if evaluation.warnings else {}),
        "seconds": evaluation.seconds,
        **_how(evaluation.protocol, evaluation.groups_from, evaluation.seed, deo, protocol, evaluation.tested_on),
        **(digests or {}),
        "group_accuracy": evaluation.group_accuracy(),
        "group_images": evaluation.counts[0].total.tolist(),
    }


def trained_networks(metadata: Mapping[str, Any]) -> str | None:
    """How the networks that a set was matched on were trained, or with a recipe the experts that it follows.

    >>> trained_networks({"networks": {"training": "lff"}}), trained_networks({"experts": {"number": 3}})
    ('lff', None)
    """
    return next((metadata[what].get("training") for what in ("networks", "experts") if metadata.get(what)), None)


def planned(
    plan: EvaluationPlan,
    *,
    dataset: str,
    method: str,
    debias: str,
    ipc: int | None,
    deo: str = "range",
    protocol: str | None = None,
    trained: str | None = None,
    digests: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What :func:`result_row` will say of a planned evaluation but for its figures and what they took."""
    about = {"dataset": dataset, "method": method, "debias": debias, "ipc": ipc}
    about |= {} if trained is None else {"trained": trained}
    how = _how(plan.protocol, plan.looks_at, plan.seed, deo, protocol, plan.dataset.tested_on)
    return {**about, **_network(plan), "nets": plan.nets, **how, **(digests or {})}


def _network(of: "Evaluation | EvaluationPlan | TrainSettings") -> dict[str, Any]:
    """``arch``, and ``width`` and ``depth`` where they are in place of the name's."""
    sizes = {"width": of.width, "depth": of.depth}
    return {"arch": canonical_name(of.arch), **{name: size for name, size in sizes.items() if size is not None}}


def _how(
    protocol: Protocol, groups_from: str, seed: int, deo: str, published: str | None, tested_on: str
) -> dict[str, Any]:
    return {
        "epochs": protocol.epochs,
        "learning_rate": protocol.learning_rate,
        "dsa_strategy": protocol.dsa_strategy,
        "dc_strategy": protocol.dc_strategy,
        **_recipe(protocol),
        **_labels(protocol),
        **({"groups_from": groups_from} if groups_from else {}),
        "seed": seed,
        "deo": deo,
        "protocol": published,
        "tested_on": tested_on,
    }


def _recipe(protocol: Protocol) -> dict[str, Any]:
    """``training``, and ``constants`` that are not the recipe's own; nothing for plain training."""
    if protocol.training == "erm":
        return {}
    constants = {"constants": dict(protocol.constants)} if protocol.constants else {}
    return {"training": protocol.training, **constants}


def _labels(protocol: Protocol) -> dict[str, Any]:
    """Of protocols that relabel: whose labels were learned, by the digest of a teacher."""
    how = protocol.relabel
    if how is None:
        return {}
    return {"labels": how.labels, **({"teacher_digest": how.teacher} if how.teacher else {})}


def network_row(trained: "TrainedNetwork", deo: str = "range") -> dict[str, Any]:
    """The result of a trained network (:func:`fastdd.train_network`), a row as :func:`result_row` has it.

    ``training``, ``constants``, ``use``, ``scale`` and ``lr`` say how it was trained, ``epoch`` which epoch was kept.
    """
    config, figures = trained.settings, asdict(trained.metrics(deo))
    accuracy = trained.counts.accuracy.tolist()
    return {
        "dataset": config.dataset,
        "method": config.training,
        "debias": config.use,
        "ipc": None,
        **_network(config),
        "nets": 1,
        **{name: _single(value) for name, value in figures.items()},
        "seconds": sum(row["seconds"] for row in trained.history),
        "epochs": config.epochs,
        "epoch": trained.epoch,
        "training": config.training,
        "constants": config.constants,
        "use": config.use,
        "scale": config.scale,
        "fakes": None if trained.fakes is None else trained.fakes.tolist(),
        "fakes_from": trained.fakes_from,
        "lr": config.lr,
        "dsa_strategy": config.dsa_strategy,
        "seed": config.seed,
        "deo": deo,
        "tested_on": trained.tested_on,
        "group_accuracy": [[None if math.isnan(value) else value for value in row] for row in accuracy],
        "group_images": trained.counts.total.tolist(),
    }


def _single(value: float) -> dict[str, float | None]:
    """A figure of one network; NaN: the test set does not define it."""
    mean, std = (None, None) if math.isnan(value) else (value, 0.0)
    return {"mean": mean, "std": std, "interval": None}


def document(rows: Sequence[dict[str, Any]], **meta: Any) -> dict[str, Any]:
    """``{"schema": 1, "rows": [...], "meta": {...}}``: rows with the versions and the machine that made them."""
    import torch

    about = {
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "fastdd": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "argv": sys.argv[1:],
    }
    return {"schema": SCHEMA, "rows": list(rows), "meta": {**about, **meta}}


def write_json(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write a document; NaN is refused, as JSON has none."""
    files.write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read a document that :func:`write_json` wrote; ValueError if it is none, or of another schema."""
    with reading.damage_of(path, kind=ValueError):
        content = reading.parse_json(reading.text(path))
    if isinstance(content, dict) and content.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"{path} has schema {shown(content['schema'])}, not {SCHEMA}")
    if not isinstance(content, dict) or not {"schema", "rows", "meta"} <= content.keys():
        raise ValueError(f"{path} is not a document of results: it needs schema, rows and meta")
    if not isinstance(content["meta"], dict):
        raise ValueError(f"{path} is damaged: its meta is {shown(content['meta'])}, not what made the rows")
    if not isinstance(content["rows"], list) or not all(isinstance(row, dict) for row in content["rows"]):
        raise ValueError(f"{path} is damaged: its rows are not all of names and values")
    return content


def read_results(path: str | os.PathLike) -> dict[str, Any]:
    """:func:`read_json` of a document whose rows are those of :func:`result_row`; ValueError where one is not."""
    content = read_json(path)
    for row in content["rows"]:
        check_row(
            row, ("method", "debias", "ipc", "arch", "nets", "epochs", "seconds", "group_accuracy"), METRICS, path
        )
    return content


def check_row(row: Mapping[str, Any], names: Sequence[str], metrics: Sequence[str], path: str | os.PathLike) -> None:
    """ValueError, naming the file, where a row has not what :func:`result_row` gives these names and metrics."""
    missing = [name for name in (*names, *metrics) if name not in row]
    if missing:
        raise ValueError(f"{path}: a row has no {missing[0]}")
    for name in metrics:
        figure = row[name]
        if not isinstance(figure, dict) or not {"mean", "std"} <= figure.keys():
            raise ValueError(f"{path}: a row's {name} is {shown(figure)}, and needs mean and std")
        if not all(map(_is_figure, figure.values())) or (figure["mean"] is None) != (figure["std"] is None):
            raise ValueError(f"{path}: a row's {name} is {shown(figure)}, not numbers")
    for name, (fits, wanted) in _KINDS.items():
        if name in row and not fits(row[name]):
            raise ValueError(f"{path}: a row's {name} is {shown(row[name])}, not {wanted}")


def _is_figure(value: Any) -> bool:
    return value is None or reading.is_number(value)


def _is_matrix(value: Any) -> bool:
    rows = value if isinstance(value, list) else []
    return bool(rows) and all(
        isinstance(row, list) and row and len(row) == len(rows[0]) and all(map(_is_figure, row)) for row in rows
    )


def _is_table_of_counts(value: Any) -> bool:
    return _is_matrix(value) and all(reading.is_count(cell) for row in value for cell in row)


def _is_word(value: Any) -> bool:
    return isinstance(value, str)


def _is_positive(value: Any) -> bool:
    return reading.is_count(value) and value > 0


# What values of a row are.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("method", "debias", "arch", "tested_on", "trained", "groups_from"), (_is_word, "a word")),
    **dict.fromkeys(("nets", "epochs", "width", "depth"), (_is_positive, "a number of them")),
    "ipc": (lambda value: value is None or _is_positive(value), "a number of images"),
    "seconds": (reading.is_number, "a number"),
    "group_accuracy": (_is_matrix, "figures of every class and group"),
    "group_images": (_is_table_of_counts, "numbers of images of every class and group"),
    "warnings": (lambda value: isinstance(value, list) and all(map(_is_word, value)), "lines"),
}


def _cell(figure: dict[str, float | None], runs: int) -> str:
    if figure["mean"] is None:
        return "-"
    return f"{figure['mean']:.1f}" + (f" ± {figure['std']:.1f}" if runs > 1 else "")


def set_name(row: Mapping[str, Any]) -> str:
    """What a result is of, in a word.

    >>> set_name({"method": "dm", "debias": "fairdd"}), set_name({"method": "dm", "debias": "none", "trained": "lff"})
    ('dm+fairdd', 'dm on lff')
    """
    name = row["method"] if row["debias"] == "none" else f"{row['method']}+{row['debias']}"
    return f"{name} on {row['trained']}" if "trained" in row else name


def network(row: Mapping[str, Any]) -> str:
    """The network of a result, in a word: with D the depth and with W the width that are in place of the name's.

    >>> network({"arch": "ConvNet"}), network({"arch": "ConvNet", "width": 32, "depth": 2})
    ('ConvNet', 'ConvNetD2W32')
    """
    sizes = [f"{letter}{row[name]}" for name, letter in (("depth", "D"), ("width", "W")) if name in row]
    return "".join([row["arch"], *sizes])


def table(rows: Sequence[dict[str, Any]], title: str | None = None, metrics: Sequence[str] = METRICS) -> "Table":
    """Rows as a rich table; the figures of ``metrics``, in percent."""
    from rich.table import Table

    result = Table(title=title, title_justify="left")
    for name in ("set", "IPC", "network", *(TITLES[metric] for metric in metrics), "seconds"):
        result.add_column(name, justify="left" if name in ("set", "network") else "right", no_wrap=True)
    for row in rows:
        figures = [_cell(row[metric], row["nets"]) for metric in metrics]
        ipc = "all" if row["ipc"] is None else str(row["ipc"])
        result.add_row(set_name(row), ipc, f"{row['nets']} x {network(row)}", *figures, f"{row['seconds']:.1f}")
    return result


def notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader of the rows' figures must know, a line each: their warnings, with the rows that have them.

    >>> notes([{"warnings": ["network 0 diverged"]}])
    ['network 0 diverged']
    """
    lines: dict[str, list[str]] = {}
    for row in rows:
        for line in row.get("warnings", ()):
            lines.setdefault(line, []).append(f"{set_name(row)}, {network(row)}" if len(rows) > 1 else "")
    return [line if len(of) == len(rows) else f"{'; '.join(of)}: {line}" for line, of in lines.items()]


def networks(row: dict[str, Any]) -> str:
    """What a result's figures are of.

    >>> networks({"nets": 2, "arch": "ConvNet", "epochs": 1000})
    '2 x ConvNet, 1,000 epochs'
    """
    return f"{row['nets']} x {network(row)}, {row['epochs']:,} epoch{'s' if row['epochs'] > 1 else ''}"


def figures(row: dict[str, Any], metrics: Sequence[str] = CURVE_METRICS) -> str:
    """The figures of ``metrics`` in a line, percent, those that the test set defines.

    >>> figures({"nets": 1, "accuracy": {"mean": 40.0}, "deo_m": {"mean": None}, "deo_a": {"mean": None}})
    'accuracy 40.0'
    """
    return ", ".join(
        f"{TITLES[name]} {_cell(row[name], row['nets'])}" for name in metrics if row[name]["mean"] is not None
    )


def group_table(
    row: dict[str, Any], class_names: Sequence[str], group_names: Sequence[str], *, full: bool = False
) -> "Table":
    """The accuracy of every class (down) in every protected group (across), percent; - where there are no images.

    Of more than 30 classes the 30 with the lowest accuracies, the lowest of a class's groups first; of more than 12
    groups every class's mean, lowest and highest. ``full``: all of them.
    """
    from rich.table import Table

    title, rows = "accuracy per class and group, %", list(zip(class_names, row["group_accuracy"], strict=True))
    if len(group_names) > _MOST_GROUPS and not full:
        return extremes_table(title, rows[:], group_names, "mean", "lowest", "highest", _MOST_CLASSES)
    if len(rows) > _MOST_CLASSES and not full:
        title += f": the {_MOST_CLASSES} lowest of {len(rows)} classes"
        rows = sorted(rows, key=lambda named: min((cell for cell in named[1] if cell is not None), default=math.inf))
    result = Table(title=title, title_justify="left")
    result.add_column("class")
    for name in group_names:
        result.add_column(name, justify="right")
    for name, cells in rows if full else rows[:_MOST_CLASSES]:
        result.add_row(name, *("-" if cell is None else f"{cell:.0f}" for cell in cells))
    return result


def extremes_table(
    title: str,
    rows: Sequence[tuple[str, Sequence[float | None]]],
    group_names: Sequence[str],
    whole: str,
    least: str,
    most: str,
    most_rows: int | None = None,
) -> "Table":
    """Of every class what all groups have together, and the groups with the least and the most.

    Args:
        rows: a class's name, and its figure in every group; None where there is none.
        whole: title of the mean (``mean``) or the sum.
        least, most: titles of the extremes.
        most_rows: of more rows, those with the least.
    """
    from rich.table import Table

    title += f"; {len(group_names)} groups, of which the extremes are shown (--full shows all)"
    if most_rows is not None and len(rows) > most_rows:
        title += f": the {most_rows} lowest of {len(rows)} classes"
        rows = sorted(rows, key=lambda named: min((c for c in named[1] if c is not None), default=math.inf))[:most_rows]
    result = Table(title=title, title_justify="left")
    result.add_column("class")
    for name in (whole, least):
        result.add_column(name, justify="right")
    result.add_column("in group")
    result.add_column(most, justify="right")
    result.add_column("in group")
    for name, cells in rows:
        known = [(cell, group) for group, cell in enumerate(cells) if cell is not None]
        if not known:
            result.add_row(name, "-", "-", "", "-", "")
            continue
        (low, of_low), (high, _) = min(known), max(known)
        of_high = next(group for cell, group in known if cell == high)
        together = sum(cell for cell, _ in known) / (len(known) if whole == "mean" else 1)
        result.add_row(name, f"{together:.0f}", f"{low:.0f}", group_names[of_low], f"{high:.0f}", group_names[of_high])
    return result
