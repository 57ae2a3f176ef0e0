"""The cases under pytest-benchmark: ``pytest tests/bench/test_speed.py --benchmark-only`` times them at full size.

In the suite one of each class is called once, with tiny inputs. That all are right on every backend is checked there by
``fastdd bench --quick`` (test_output.py), with the same errors and bounds.
"""

import functools

import pytest
import torch

from fastdd import models
from fastdd.bench import cases
from fastdd.bench.framework.case import ALLOWED

pytest.importorskip("pytest_benchmark")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.lru_cache(maxsize=1)
def prepared(case, quick):
    inputs = case.inputs(0, DEVICE, quick)
    truth = case.truth(inputs)
    plain = case.check("torch", inputs, None, truth)
    return inputs, truth, list(zip(plain, case.floors(len(plain)), strict=True))


@pytest.fixture(autouse=True)
def _as_the_command_does():
    with torch.random.fork_rng(), models.exact_convolutions():
        yield


def pytest_generate_tests(metafunc):
    chosen = cases.select([])
    if metafunc.config.option.benchmark_disable:
        chosen = {type(case): case for case in reversed(chosen)}.values()
    pairs = [(case, backend) for case in chosen for backend in case.backends(None)]
    metafunc.parametrize(("case", "backend"), pairs, ids=[f"{case.label}-{backend}" for case, backend in pairs])


def test_speed(benchmark, case, backend):
    inputs, truth, plain = prepared(case, benchmark.disabled)
    errors = case.check(backend, inputs, None, truth)
    benchmark.group = case.label
    benchmark.extra_info |= {
        "backend": backend,
        "device": str(DEVICE),
        "dtype": str(case.dtype).removeprefix("torch."),
        "shape": case.shape(inputs),
        "bytes": case.bytes(inputs),
        "flops": case.flops(inputs),
        "max_err": max(errors),
    }

    def call():
        case.call(backend, inputs, None)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark(call)
    for error, (of_plain, floor) in zip(errors, plain, strict=True):
        assert error <= ALLOWED[backend] * of_plain + floor
