"""The cases under pytest-benchmark: ``pytest tests/bench/test_speed.py --benchmark-only`` times them at full size.

In the suite each is called once, with tiny inputs.
"""

import functools

import pytest
import torch

from fastdd import models
from fastdd.bench import cases

pytest.importorskip("pytest_benchmark")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.lru_cache(maxsize=1)
def prepared(case, quick):
    inputs = case.inputs(0, DEVICE, quick)
    return inputs, case.truth(inputs)


@pytest.fixture(autouse=True)
def _as_the_command_does():
    with torch.random.fork_rng(), models.exact_convolutions():
        yield


@pytest.mark.parametrize("backend", ["reference-loop", "torch", "fastdd"])
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.label)
def test_speed(benchmark, case, backend):
    inputs, truth = prepared(case, benchmark.disabled)
    benchmark.group = case.label
    benchmark.extra_info |= {
        "backend": backend,
        "device": str(DEVICE),
        "dtype": str(case.dtype).removeprefix("torch."),
        "shape": case.shape(inputs),
        "bytes": case.bytes(inputs),
        "flops": case.flops(inputs),
        "max_err": max(case.check(backend, inputs, None, truth)),
    }

    def call():
        case.call(backend, inputs, None)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark(call)
    assert benchmark.extra_info["max_err"] < 1e-3
