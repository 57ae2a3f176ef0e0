"""Compiles every kernel of kernels/gradient_match.py for sm_90, without a GPU; prints what each uses."""

import itertools
import json

import triton.language as tl
from aot import compile_for_sm_90

from fastdd.kernels import gradient_match as kernels
from fastdd.kernels import gradient_match_layers as layers


def of_layers() -> list[dict]:
    """Those of all layers at once."""
    rows = []
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
            rows.append(compile_for_sm_90(kernel, kernel.fn.__name__, kinds, {"ACC": acc, **chosen}))
        if real in ("fp32", "fp64"):
            rows.append(compile_for_sm_90(layers.layers_finish, "layers_finish", kinds, chosen))
    return rows


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
    rows += of_layers()
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
