"""Results that runs are seen beside: real images, drawn at random, or all of them."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from fastdd import models
from fastdd.methods import configure
from fastdd.report.record import Record
from fastdd.report.results import network, read_results


def read_baselines(paths: Sequence[str | os.PathLike], records: Sequence[Record]) -> list[dict[str, Any]]:
    """Rows of documents that ``fastdd evaluate random|whole --json`` wrote, in their order.

    Raises:
        ValueError: naming the file: it is none, it has no rows, or they are of other images than those that a run was
            evaluated on.
    """
    rows = []
    for path in paths:
        content = read_results(path)
        if not content["rows"]:
            raise ValueError(f"{path} has no results: fastdd evaluate random --json {path} writes some")
        _check_data(path, content, records)
        rows += content["rows"]
    return rows


def _check_data(path: str | os.PathLike, content: dict[str, Any], records: Sequence[Record]) -> None:
    sets = {record.dataset for record in records} - {None}
    for row in content["rows"]:
        if sets and row.get("dataset") not in sets:
            raise ValueError(f"{path} is of {row.get('dataset')}, the runs are of {', '.join(sorted(sets))}")
    own = content["meta"].get("dataset_digest")
    known = {record.meta["dataset_digest"] for record in records if record.meta.get("dataset_digest")}
    if own and known and own not in known:
        raise ValueError(f"{path} is of other images than the runs were evaluated on: give it the same data options")


def command_for(row: dict[str, Any]) -> str:
    """How the random baseline of a run with this result is made, by networks that are trained alike: those of the data
    set, which need no name, or others that have one; empty where none has their width and depth.

    >>> command_for({"dataset": "c-digits", "ipc": 10, "arch": "ConvNetBN", "nets": 2, "epochs": 7})
    'fastdd evaluate random --dataset c-digits --ipc 10 --arch ConvNetBN --nets 2 --epochs 7 --json random.json'
    """
    usual = configure(dataset=row["dataset"], ipc=row["ipc"]).model_dump()
    of_data_set = models.canonical_name(usual["arch"]), usual.get("width"), usual.get("depth")
    named = {**row, "arch": network(row)}
    if (row["arch"], row.get("width"), row.get("depth")) == of_data_set:
        del named["arch"]
    elif named["arch"] not in models.names():
        return ""
    words = ["fastdd", "evaluate", "random"]
    for name in ("dataset", "ipc", "arch", "nets", "epochs"):
        if named.get(name) is not None:
            words += [f"--{name}", str(named[name])]
    return shlex.join([*words, "--json", "random.json"])
