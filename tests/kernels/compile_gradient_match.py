"""Every kernel of kernels/gradient_match.py as launches specialise it on sm_90."""

import itertools
from collections.abc import Iterator

import triton.language as tl
from aot import Job

from fastdd.kernels import gradient_match as kernels
from fastdd.kernels import gradient_match_layers as layers


def of_layers() -> Iterator[Job]:
    """Those of all layers at once."""
    for real, metric, marked in itertools.product(
        ("fp32", "bf16", "fp16", "fp64"), ("ours", "cos", "mse", "l1"), (False, True)
    ):
        acc, wide = (tl.float64, "*fp64") if real == "fp64" else (tl.float32, "*fp32")
        kinds = {
            **dict.fromkeys(("b", "ab", "aa", "bb", "g", "out"), wide),
            **{"a": f"*{real}", "classes": "*i64", "present": "*u8", "starts": "*i64", "lengths": "*i32"},
        }
        chosen = {"METRIC": metric, "HAS_PRESENT": marked}
        for kernel in (layers.layers_multiply, layers.layers_pull):
            yield Job(kernel, kernel.fn.__name__, kinds, {"ACC": acc, **chosen})
        if real in ("fp32", "fp64"):
            yield Job(layers.layers_finish, "layers_finish", kinds, chosen)


def jobs() -> Iterator[Job]:
    terms = ({"DIFFERENCES": False, "ABSOLUTE": False}, {"DIFFERENCES": True, "ABSOLUTE": False})
    terms += ({"DIFFERENCES": True, "ABSOLUTE": True},)
    for real, summed in itertools.product(("fp32", "bf16", "fp16", "fp64"), terms):
        acc, accumulated = (tl.float64, "*fp64") if real == "fp64" else (tl.float32, "*fp32")
        kinds = {
            **dict.fromkeys(("b", "ab", "aa", "bb", "p", "q", "out"), accumulated),
            **{"a": f"*{real}", "classes": "*i64"},
        }
        constants = {"ACC": acc, **summed}
        for whole in (False, True):
            yield Job(kernels.row_multiply, "row_multiply", kinds, {**constants, "WHOLE": whole})
        yield Job(kernels.row_sums, "row_sums", kinds, constants)
        short = {**constants, "WHOLE": True}
        yield Job(kernels.row_multiply, "row_multiply_short", kinds, short)
        yield Job(kernels.row_sums, "row_sums_short", kinds, constants)
    yield from of_layers()
