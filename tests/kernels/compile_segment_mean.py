"""Compiles every kernel of kernels/segment_mean.py for sm_90, without a GPU; prints what each uses."""

import itertools
import json

import triton.language as tl
from aot import compile_for_sm_90

from fastdd.kernels import segment_mean as kernels


def main() -> None:
    rows = []
    for x, weighted, split in itertools.product(("fp32", "bf16", "fp16", "fp64"), (False, True), (False, True)):
        wide = x == "fp64"
        acc, accumulated = (tl.float64, "*fp64") if wide else (tl.float32, "*fp32")
        kinds = {
            **{"x": f"*{x}", "g": accumulated, "offsets": "*i64", "weights": "*fp32"},
            **dict.fromkeys(("out", "totals", "partials"), accumulated),
        }
        jobs = [(kernels.segment_sums, "segment_sums", {"ACC": acc, "WEIGHTED": weighted, "SPLIT": split})]
        if x in ("fp32", "fp64") and not split:
            jobs.append((kernels.segment_spread_rows, "segment_spread", {"ACC": acc, "WEIGHTED": weighted}))
            if weighted:
                jobs.append((kernels.segment_totals, "segment_totals", {"ACC": acc}))
                jobs.append((kernels.segment_finish, "segment_finish", {"ACC": acc}))
        for kernel, config, constants in jobs:
            rows.append(compile_for_sm_90(kernel, config, kinds, constants))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
