"""Predictions in a file, made before a measurement, and a measurement beside them.

{"schema": 1, "meta": {"model", "gpu", "git", "utc", "fastdd"}, "rows": [...]}, with the rows of
:func:`fastdd.bench.framework.model.predictions`. Rows that a measurement has been put beside have ``measured`` too, our
median in microseconds, and ``ratio``, how many times the eager prediction that is; both null where there is no
measurement that matches its truth.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdd.bench.framework import machine, schema
from fastdd.bench.framework.case import Case
from fastdd.bench.framework.model import GPUS, RESULTS, Gpu, predictions
from fastdd.core import reading
from fastdd.core.version import __version__

if TYPE_CHECKING:
    from rich.table import Table

_SCHEMA = 1
_ROOT = Path(__file__).resolve().parents[2]
_CASE = ("name", "dtype", "shape")


def predicted(cases: Sequence[Case], name: str, seed: int = 0) -> dict[str, Any]:
    """The document of cases on a GPU of :data:`~fastdd.bench.framework.model.GPUS`, with all that is assumed of it."""
    gpu = GPUS[name]
    meta = {
        "model": name,
        "gpu": {key: value for key, value in vars(gpu).items() if key != "results"},
        "git": machine.git(_ROOT),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "fastdd": __version__,
    }
    return {"schema": _SCHEMA, "meta": meta, "rows": list(predictions(cases, gpu, seed))}


def read(path: str | os.PathLike, globs: Sequence[str] = ()) -> dict[str, Any]:
    """Predictions from a file, those of all cases or of those whose names match a glob.

    Raises:
        ValueError: it holds none, or none of such a case.
        OSError: it can't be read.
    """
    with reading.damage_of(path, "is not JSON", ValueError):
        content = reading.parse_json(reading.text(path))
    meta = content.get("meta") if isinstance(content, dict) else None
    if not isinstance(meta, dict) or meta.get("model") not in GPUS or content.get("schema") != _SCHEMA:
        raise ValueError(f"{path} holds no predictions: fastdd bench --model {'|'.join(GPUS)} --json writes them")
    for glob in globs:
        if not any(fnmatchcase(row["name"], glob) for row in content["rows"]):
            raise ValueError(f"{path} has no case that matches {glob!r}")
    rows = [row for row in content["rows"] if not globs or any(fnmatchcase(row["name"], glob) for glob in globs)]
    return {**content, "rows": rows}


def results_of(gpu: Gpu) -> list[Path]:
    """The measurements of a GPU that came with fastdd, the newest last."""
    return sorted(RESULTS.glob(gpu.results))


def beside(document: dict[str, Any], files: Iterable[str | os.PathLike]) -> dict[str, Any]:
    """The document with ``measured`` and ``ratio`` in its rows, from files of measurements; the last that has a case
    counts.

    Raises:
        ValueError: a file that is no measurement (:mod:`fastdd.bench.framework.schema`), or of tiny inputs.
    """
    measured, sources = {}, []
    for path in files:
        content = schema.read(path)
        if content["meta"]["quick"]:
            raise ValueError(f"{path} was measured with --quick: it says nothing about speed")
        sources.append({"file": Path(path).name, **{key: content["meta"][key] for key in ("git", "utc", "device")}})
        for row in content["rows"]:
            if row["backend"] == "fastdd" and row["match"] and row["median_us"]:
                measured[_key(row["case"], row["dtype"], row["shape"])] = row["median_us"]
    rows = []
    for row in document["rows"]:
        found = measured.get(_key(*(row[name] for name in _CASE)))
        rows.append({**row, "measured": found, "ratio": found and found / row["eager"]})
    return {**document, "meta": {**document["meta"], "measured": sources}, "rows": rows}


def _key(case: str, dtype: str, shape: dict[str, Any]) -> tuple[str, str, str]:
    return case, dtype, json.dumps(shape, sort_keys=True)


def table(document: dict[str, Any]) -> "Table":
    """The rows for people."""
    from rich.table import Table

    sources = ", ".join(f"{one['file']} ({one['utc'][:10]})" for one in document["meta"]["measured"])
    result = Table(
        title=f"{document['meta']['gpu']['name']}: predicted (at least; of bytes, flops and launches); measured: "
        f"{sources or 'not yet'}; ratio: measured to eager",
        title_justify="left",
        box=None,
        header_style="",
    )
    arithmetic = ("arithmetic", "split convolutions")
    for name in ("case", "launches", "memory", *arithmetic, "eager", "bound by", "in a graph", "measured", "ratio"):
        result.add_column(name, justify="left" if name in ("case", "bound by") else "right", no_wrap=True)
    for row in document["rows"]:
        launches = "-" if row["launches"] is None else str(row["launches"])
        times = [_ms(row[name]) for name in ("memory", "arithmetic", "split", "eager")]
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        result.add_row(row["case"], launches, *times, row["bound"], _ms(row["graph"]), _ms(row["measured"]), ratio)
    return result


def _ms(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1e3:.3f} ms"
