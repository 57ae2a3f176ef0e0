"""The measurement of one case: errors, times and memory of every backend, and its rows of the document."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from fastdd.bench.framework.case import ALLOWED, BASELINES, Case, Result
from fastdd.bench.framework.memory import peak_bytes
from fastdd.bench.framework.timing import Stopwatch, alternate
from fastdd.bench.framework.upstream import Upstream


def measure(
    case: Case,
    device: torch.device,
    *,
    seed: int,
    reps: int,
    budget: float,
    limit: float | None,
    quick: bool,
    memory: bool,
    upstream: Upstream | None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The rows of one case, one a backend, and what went wrong."""
    measured = Measured({name: Backend() for name in case.backends(upstream)})
    facts = {"shape": dict(case.variant), "bytes": 0, "flops": 0}
    try:
        inputs = case.inputs(seed, device, quick)
        facts = {"shape": case.shape(inputs), "bytes": case.bytes(inputs), "flops": case.flops(inputs)}
        truth = case.truth(inputs)
    except Exception as error:
        for backend in measured.backends.values():
            backend.failure = error
        return _rows(case, device, facts, measured), measured.failures(case)
    measured.check(case, device, inputs, upstream, truth)
    del truth  # as large as the outputs
    measured.time(case, device, inputs, upstream, reps=reps, budget=budget, limit=limit)
    if memory and case.memory:
        for name, backend in measured.working():
            with backend.attempt():
                backend.peak = peak_bytes(case, name, inputs, device, seed=seed, quick=quick, upstream=upstream)
    return _rows(case, device, facts, measured), measured.failures(case)


@dataclass
class Backend:
    """What was measured of a backend.

    Attributes:
        errors: of every result; None if the check raised.
        times: microseconds of every timed call.
        peak: bytes.
        failure: what it raised.
    """

    errors: list[float] | None = None
    times: list[float] = field(default_factory=list)
    peak: int | None = None
    failure: Exception | None = None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What is raised within is the backend's failure."""
        try:
            yield
        except Exception as error:
            self.failure = error


@dataclass
class Measured:
    """A case's backends, by name, in the order of the table."""

    backends: dict[str, Backend]

    def working(self) -> list[tuple[str, Backend]]:
        """Those that have not failed."""
        return [(name, backend) for name, backend in self.backends.items() if backend.failure is None]

    def check(self, case: Case, device: torch.device, inputs: object, upstream: Upstream | None, truth: Result) -> None:
        """Their errors; of those that take minutes, the time as well."""
        stopwatch = Stopwatch(device)
        for name, backend in self.working():

            def check(name: str = name, backend: Backend = backend) -> None:
                backend.errors = case.check(name, inputs, upstream, truth)

            with backend.attempt():
                spent = stopwatch(check)
                backend.times = [spent] if name in case.once else []

    def time(
        self,
        case: Case,
        device: torch.device,
        inputs: object,
        upstream: Upstream | None,
        *,
        reps: int,
        budget: float,
        limit: float | None,
    ) -> None:
        """The times of those that have none yet, in turns."""
        functions = {
            name: partial(case.call, name, inputs, upstream) for name, backend in self.working() if not backend.times
        }
        times, failures = alternate(functions, device, reps=reps, budget=budget, limit=limit)
        for name in functions:
            self.backends[name].times, self.backends[name].failure = times.get(name, []), failures.get(name)

    def failures(self, case: Case) -> list[dict[str, str]]:
        """What was raised, with one entry for what hit all of them alike."""
        raised = [(name, backend.failure) for name, backend in self.backends.items() if backend.failure is not None]
        if len(raised) == len(self.backends) and len({id(error) for _, error in raised}) == 1:
            raised = [("all", raised[0][1])]
        return [{"case": case.label, "backend": name, "error": _line(error)} for name, error in raised]


def _rows(case: Case, device: torch.device, facts: dict[str, Any], measured: Measured) -> list[dict[str, Any]]:
    """A row a backend; errors are held to plain PyTorch's, and speed-ups are over the rows above."""
    plain, rows = measured.backends.get("torch", Backend()).errors, []
    for name, backend in measured.backends.items():
        budgets = plain and [
            ALLOWED[name] * error + floor for error, floor in zip(plain, case.floors(len(plain)), strict=True)
        ]
        row = {
            "case": case.name,
            "backend": name,
            "device": str(device),
            "dtype": str(case.dtype).removeprefix("torch."),
            **facts,
            **_quantiles([] if backend.failure else backend.times),
            "peak_bytes": backend.peak,
            "speedup": dict.fromkeys(BASELINES),
            **_verdict(backend.errors, budgets),
        }
        row["match"] = row["match"] and backend.failure is None
        for baseline in rows:
            if row["match"] and baseline["match"]:
                row["speedup"][baseline["backend"]] = baseline["median_us"] / row["median_us"]
        rows.append(row)
    return rows


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
