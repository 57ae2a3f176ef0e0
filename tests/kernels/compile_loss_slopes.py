"""The kernel of kernels/loss_slopes.py as launches specialise it on sm_90."""

import itertools
from collections.abc import Iterator

import triton.language as tl
from aot import Job

from fastdd.kernels import loss_slopes as kernels


def jobs() -> Iterator[Job]:
    for dtype, pull, weighted in itertools.product(("fp32", "bf16", "fp16", "fp64"), (False, True), (False, True)):
        kinds = {
            **dict.fromkeys(("h", "logits", "out"), f"*{dtype}"),
            **{"labels": "*i64", "offsets": "*i64", "weights": "*fp32"},
        }
        constants = {"ACC": tl.float64 if dtype == "fp64" else tl.float32, "PULL": pull, "WEIGHTED": weighted}
        yield Job(kernels.loss_slopes_rows, "loss_slopes", kinds, constants)
