"""Check, then time: rows of every backend of every case, and speed-ups only where results match."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from fastdd.bench.framework import machine, schema
from fastdd.bench.framework.case import ALLOWED, BASELINES, Case
from fastdd.bench.framework.memory import peak_bytes
from fastdd.bench.framework.timing import Stopwatch, alternate
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


def measure(
    case: Case,
    device: torch.device,
    *,
    seed: int,
    reps: int,
    budget: float,
    quick: bool,
    memory: bool,
    upstream: Upstream | None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The rows of one case, one a backend, and what went wrong."""
    backends = case.backends(upstream)
    failures: dict[str, Exception] = {}
    errors: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    inputs, facts = None, {"shape": dict(case.variant), "bytes": 0, "flops": 0}
    try:
        inputs = case.inputs(seed, device, quick)
        facts = {"shape": case.shape(inputs), "bytes": case.bytes(inputs), "flops": case.flops(inputs)}
        truth = case.truth(inputs)
    except Exception as error:
        failures = dict.fromkeys(backends, error)
    stopwatch = Stopwatch(device)
    for backend in [name for name in backends if name not in failures]:

        def check(backend: str = backend) -> None:
            errors[backend] = case.check(backend, inputs, upstream, truth)

        try:
            spent = stopwatch(check)
        except Exception as error:
            failures[backend] = error
        else:
            if backend in case.once:
                times[backend] = [spent]
    truth = None  # as large as the outputs
    functions = {
        backend: lambda backend=backend: case.call(backend, inputs, upstream)
        for backend in backends
        if backend not in failures and backend not in times
    }
    timed, failed = alternate(functions, device, reps=reps, budget=budget)
    times, failures = {**timed, **times}, {**failures, **failed}
    peaks: dict[str, int | None] = {}
    for backend in [name for name in backends if memory and case.memory and name not in failures]:
        try:
            peaks[backend] = peak_bytes(case, backend, inputs, device, seed=seed, quick=quick, upstream=upstream)
        except Exception as error:
            failures[backend] = error

    plain, rows = errors.get("torch"), []
    for backend in backends:
        budgets = plain and [
            ALLOWED[backend] * error + floor for error, floor in zip(plain, case.floors(len(plain)), strict=True)
        ]
        row = {
            "case": case.name,
            "backend": backend,
            "device": str(device),
            "dtype": str(case.dtype).removeprefix("torch."),
            **facts,
            **_quantiles([] if backend in failures else times[backend]),
            "peak_bytes": peaks.get(backend),
            "speedup": dict.fromkeys(BASELINES),
            **_verdict(errors.get(backend), budgets),
        }
        row["match"] = row["match"] and backend not in failures
        rows.append(row)
    for number, row in enumerate(rows):
        for baseline in rows[:number]:  # those above it in the order of the table
            if row["match"] and baseline["match"]:
                row["speedup"][baseline["backend"]] = baseline["median_us"] / row["median_us"]
    # One entry for what hit all of them alike.
    shared = len(set(map(id, failures.values()))) == 1 and len(failures) == len(backends)
    listed = [("all", failures[backends[0]])] if shared else list(failures.items())
    return rows, [{"case": case.label, "backend": name, "error": _line(error)} for name, error in listed]


def failed(document: dict[str, Any]) -> list[str]:
    """What is wrong with a document's results, in words: backends that raised, and rows of ours that don't match."""
    raised = [f"{e['case']} {e['backend']}: {e['error']}" for e in document["meta"]["errors"]]
    wrong = [
        f"{row['case']} {row['shape']}: fastdd is off by {row['max_err']}, allowed are {row['err_budget']}"
        for row in document["rows"]
        if row["backend"] == "fastdd" and not row["match"] and row["reps"]
    ]
    return raised + wrong


def _quantiles(times: list[float]) -> dict[str, Any]:
    low, median, high = np.percentile(times, [20, 50, 80]).tolist() if times else (None, None, None)
    return {"reps": len(times), "median_us": median, "q20_us": low, "q80_us": high}


def _verdict(errors: list[float] | None, budgets: list[float] | None) -> dict[str, Any]:
    """The result that comes nearest to its budget, or exceeds it most, stands for all."""
    if errors is None or budgets is None:
        return {"match": False, "max_err": None, "err_budget": None}
    error, budget = max(zip(errors, budgets, strict=True), key=_excess)
    return {"match": error <= budget and math.isfinite(budget), "max_err": error, "err_budget": budget}


def _excess(pair: tuple[float, float]) -> float:
    error, budget = pair
    return error / budget if math.isfinite(error) and math.isfinite(budget) else math.inf


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
