"""``fastdd bench --base REF`` and ``fastdd bench --history``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastdd.bench.framework import base, history
from fastdd.bench.framework.case import Case
from fastdd.cli.console import bar, console
from fastdd.core import files
from fastdd.report import write_json


def against(
    ref: str,
    selected: Sequence[Case],
    device: torch.device,
    *,
    json: Path | None,
    reps: int,
    budget: float,
    quick: bool,
    seed: int,
    argv: Sequence[str],
) -> None:
    """Measure this tree and a commit in turns; RuntimeError where this tree's results do not match."""
    rows: list[dict[str, Any]] = []
    threads = torch.get_num_threads()
    settings = {"seed": seed, "reps": reps, "budget": budget, "quick": quick}
    with bar("bench") as update:
        update(0, len(selected), f"files of {ref}")
        with base.other_tree(ref) as other:
            trees = other, base.Tree("this tree", None, None)
            labels = [case.label for case in selected]
            for row in base.compare(trees, labels, device=str(device), threads=threads, **settings):
                rows.append(row)
                update(len(rows), len(selected), row["case"])
                if json is not None and (len(rows) == len(selected) or not files.is_stream(json)):
                    write_json(json, base.document(trees, rows, device, argv=list(argv), **settings))
    note = " (quick: no measure of speed)" if quick else ""
    console.print(base.table(trees, rows, f"{device}, {threads} thread{'s' * (threads != 1)}{note}"))
    if problems := base.failed(rows):
        raise RuntimeError("; ".join(problems[:3]))


def show_history(globs: Sequence[str], plot: Path | None, json: Path | None) -> None:
    """Print, draw and write what was committed."""
    found = history.points(history.committed(), globs)
    if not found:
        raise ValueError("no committed result has a case that matches its truth")
    drawn = None if plot is None else history.draw(plot, found)
    if json is not None:
        files.write_text(json, history.as_json(found))
    console.print(history.table(found))
    if drawn is not None:
        console.print(f"{plot}: over time, {drawn} cases that were measured twice or more on a machine")
