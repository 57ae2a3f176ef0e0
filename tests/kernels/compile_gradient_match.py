"""Compiles every kernel of kernels/gradient_match.py for sm_90, without a GPU; prints what each uses."""

import itertools
import json

import triton.language as tl
from aot import compile_for_sm_90

from fastdd.kernels import gradient_match as kernels


def main() -> None:
    rows = []
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
            rows.append(compile_for_sm_90(kernels.row_multiply, "row_multiply", kinds, {**constants, "WHOLE": whole}))
        rows.append(compile_for_sm_90(kernels.row_sums, "row_sums", kinds, constants))
        short = {**constants, "WHOLE": True}
        rows.append(compile_for_sm_90(kernels.row_multiply, "row_multiply_short", kinds, short))
        rows.append(compile_for_sm_90(kernels.row_sums, "row_sums_short", kinds, constants))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
