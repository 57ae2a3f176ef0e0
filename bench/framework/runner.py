"""Check, then time: rows of every backend of every case, and speed-ups only where results match."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fastdd.bench.framework import machine, schema
from fastdd.bench.framework.case import Case
from fastdd.bench.framework.measurement import measure
from fastdd.bench.framework.upstream import Upstream


def run(
    cases: Sequence[Case],
    device: torch.device,
    *,
    seed: int = 0,
    reps: int = 7,
    budget: float = 5.0,
    quick: bool = False,
    memory: bool = False,
    upstream: Upstream | None = None,
    argv: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Measure cases one after the other.

    Args:
        cases: what to measure.
        device: where.
        seed: of all inputs.
        reps: least number of timed calls of a backend.
        budget: seconds for the timing of a case; more calls follow until they are spent.
        quick: tiny inputs: the rows say nothing about speed.
        memory: measure the peak memory of cases that ask for it as well (:mod:`fastdd.bench.framework.memory`).
        upstream: published code to measure too.
        argv: the command line, for the file.

    Yields:
        The document (:mod:`fastdd.bench.framework.schema`) after every case, with all rows so far.

    All backends compute under :func:`fastdd.bench.framework.machine.conditions`; the global random state is as before
    afterwards.
    """
    document = {
        "schema": schema.SCHEMA,
        "meta": {
            **machine.describe(device),
            "argv": list(argv),
            "quick": quick,
            "seed": seed,
            "reps": reps,
            "budget_s": budget,
            "ceilings": {},
            "upstream": upstream and {"name": upstream.name, "commit": upstream.commit},
            "errors": [],
        },
        "rows": [],
    }
    with machine.conditions(device, seed):
        document["meta"]["ceilings"] = machine.ceilings(device, quick)
        for case in cases:
            rows, errors = measure(
                case, device, seed=seed, reps=reps, budget=budget, quick=quick, memory=memory, upstream=upstream
            )
            document["rows"] += rows
            document["meta"]["errors"] += errors
            yield document


def failed(document: dict[str, Any]) -> list[str]:
    """What is wrong with a document's results, in words: backends that raised, and rows of ours that don't match."""
    raised = [f"{e['case']} {e['backend']}: {e['error']}" for e in document["meta"]["errors"]]
    wrong = [
        f"{row['case']} {row['shape']}: fastdd is off by {row['max_err']}, allowed are {row['err_budget']}"
        for row in document["rows"]
        if row["backend"] == "fastdd" and not row["match"] and row["reps"]
    ]
    return raised + wrong
