"""``fastdd bench``."""

import sys
from pathlib import Path

import torch
from rich.table import Table

from fastdd.api import pick_device
from fastdd.bench import cases
from fastdd.bench.framework import plot as draw
from fastdd.bench.framework import runner, schema
from fastdd.bench.framework.table import table
from fastdd.bench.framework.upstream import Upstream
from fastdd.cli.console import bar, console
from fastdd.core import files


def run_list(globs: list[str]) -> None:
    shown = Table(box=None, show_header=False)
    for case in cases.select(globs):
        shown.add_row(case.label, case.about)
    console.print(shown)


def run_bench(
    *,
    globs: list[str],
    device: str,
    json: Path | None,
    plot: Path | None,
    upstream: Path | None,
    reps: int | None,
    budget: float | None,
    threads: int | None,
    seed: int,
    quick: bool,
    memory: bool,
) -> None:
    selected = cases.select(globs)
    target = pick_device(device)
    for path in filter(None, (json, plot)):
        files.check_writable(path)
    code = None if upstream is None else Upstream.open(upstream)
    if threads is not None:
        torch.set_num_threads(threads)
    documents = runner.run(
        selected,
        target,
        seed=seed,
        reps=(3 if quick else 7) if reps is None else reps,
        budget=(0.0 if quick else 5.0) if budget is None else budget,
        quick=quick,
        memory=memory,
        upstream=code,
        # Files are shared and committed; folders of a machine have no place in them.
        argv=[Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]],
    )
    with bar("bench") as update:
        for number, document in enumerate(documents, 1):
            update(number, len(selected), selected[number - 1].label)
            if json is not None:  # after every case: a run that is stopped keeps what it has
                schema.write(json, document)
    console.print(table(document))
    if plot is not None:
        draw.write(plot, document)
    if problems := runner.failed(document):
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise RuntimeError("; ".join(problems[:3]) + more)


def run_validate(paths: list[Path]) -> None:
    for path in paths:
        document = schema.read(path)
        matching = sum(row["match"] for row in document["rows"])
        console.print(f"{path}: valid, {len(document['rows'])} rows, {matching} match")
