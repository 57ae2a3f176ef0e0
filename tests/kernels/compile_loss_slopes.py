"""Compiles the kernel of kernels/loss_slopes.py for sm_90, without a GPU; prints what it uses."""

import itertools
import json

import triton.language as tl
from aot import compile_for_sm_90

from fastdd.kernels import loss_slopes as kernels


def main() -> None:
    rows = []
    for dtype, pull, weighted in itertools.product(("fp32", "bf16", "fp16", "fp64"), (False, True), (False, True)):
        kinds = {
            **dict.fromkeys(("h", "logits", "out"), f"*{dtype}"),
            **{"labels": "*i64", "offsets": "*i64", "weights": "*fp32"},
        }
        constants = {"ACC": tl.float64 if dtype == "fp64" else tl.float32, "PULL": pull, "WEIGHTED": weighted}
        rows.append(compile_for_sm_90(kernels.loss_slopes_rows, "loss_slopes", kinds, constants))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
