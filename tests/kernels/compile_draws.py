"""Every kernel of kernels/draws.py and kernels/dsa.py as launches specialise it on sm_90."""

from collections.abc import Iterator

from aot import Job

from fastdd.kernels import draws, dsa


def jobs() -> Iterator[Job]:
    words = {"keys": "*i64", "key": "*i64", "parents": "*i64"}
    floats = dict.fromkeys(("scale", "offset"), "*fp32")
    yield Job(draws.counter_lanes, "counter_draws", {**words, "out": "*i64"})
    yield Job(draws.counter_draws, "counter_draws", {**words, "out": "*i64"}, {"UNIFORM": False})
    yield Job(draws.counter_draws, "counter_draws", {**words, "out": "*fp32"}, {"UNIFORM": True})
    yield Job(draws.fresh_parameters, "counter_draws", {**words, **floats, "out": "*fp32"})
    ranges = {"BRIGHTNESS": 1.0, "SATURATION": 2.0, "CONTRAST": 0.5, "SCALE": 1.2, "ANGLE": 0.26}
    for kind in ("*fp32", "*fp64"):
        constants = ranges | {"OPS": 0x543210, "N_OPS": 6}
        yield Job(dsa.dsa_rows, "dsa_rows", {**words, "out": kind}, constants)
