"""Check, then time: rows of every backend of every case, and speed-ups only where results match."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fastdd.bench.framework import machine, schema
from fastdd.bench.framework.case import Case
from fastdd.bench.framework.measurement import measure
from fastdd.bench.framework.upstream import Upstream

# What the rows of one document have in common: times of different ones do not compare.
_SAME = (
    *("device", "cpu", "git", "fastdd", "torch", "triton", "threads", "keeps_freed_memory"),
    *("quick", "seed", "reps", "budget_s", "upstream"),
)


def run(
    cases: Sequence[Case],
    device: torch.device,
    *,
    seed: int = 0,
    reps: int = 7,
    budget: float = 5.0,
    limit: float | None = None,
    quick: bool = False,
    memory: bool = False,
    upstream: Upstream | None = None,
    argv: Sequence[str] = (),
    before: dict[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Measure cases one after the other.

    Args:
        cases: what to measure.
        device: where.
        seed: of all inputs.
        reps: least number of timed calls of a backend.
        budget: seconds for the timing of a case; more calls follow until they are spent.
        limit: seconds that the timing of a case takes at most, but for one call of each backend; None: as long as
            ``reps`` calls take.
        quick: tiny inputs: the rows say nothing about speed.
        memory: measure the peak memory of cases that ask for it as well (:mod:`fastdd.bench.framework.memory`).
        upstream: published code to measure too.
        argv: the command line, for the file.
        before: a document to go on with: the ceilings and cases that it has are not measured again.

    Raises:
        ValueError: ``before`` was measured on, with or of something else.

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
            "case_seconds": {},
        },
        "rows": [],
    }
    if before is not None:
        _check_same(before["meta"], document["meta"])
        document = before
    with machine.conditions(device, seed):
        if before is None:
            document["meta"]["ceilings"] = machine.ceilings(device, quick)
        for case in missing(cases, before):
            began = time.perf_counter()
            rows, errors = measure(
                case,
                device,
                seed=seed,
                reps=reps,
                budget=budget,
                limit=limit,
                quick=quick,
                memory=memory,
                upstream=upstream,
            )
            document["rows"] += rows
            document["meta"]["errors"] += errors
            document["meta"]["case_seconds"][case.label] = time.perf_counter() - began
            yield document


def missing(cases: Sequence[Case], document: dict[str, Any] | None) -> list[Case]:
    """The cases that a document does not have."""
    return [case for case in cases if document is None or case.label not in document["meta"]["case_seconds"]]


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in _SAME:
        if before[name] != now[name]:
            raise ValueError(f"the file to resume has {name} {before[name]}, and this is {now[name]}: use another file")


def failed(document: dict[str, Any]) -> list[str]:
    """What is wrong with a document's results, in words: backends that raised, and rows of ours that don't match."""
    raised = [f"{e['case']} {e['backend']}: {e['error']}" for e in document["meta"]["errors"]]
    wrong = [
        f"{row['case']} {row['shape']}: fastdd is off by {row['max_err']}, allowed are {row['err_budget']}"
        for row in document["rows"]
        if row["backend"] == "fastdd" and not row["match"] and row["reps"]
    ]
    return raised + wrong
