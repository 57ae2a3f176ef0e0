"""Compiles every kernel of kernels/embedding_match.py for sm_90, without a GPU; prints what each uses."""

import json

import triton.language as tl
from aot import compile_for_sm_90

from fastdd.kernels import embedding_match as kernels


def main() -> None:
    rows = []
    for real in ("fp32", "bf16", "fp16", "fp64"):
        acc, accumulated = (tl.float64, "*fp64") if real == "fp64" else (tl.float32, "*fp32")
        floats = ["synthetic", "sums", "split_totals", "totals", "distances", "differences", "scale", "x", "out"]
        kinds = {
            **dict.fromkeys(floats, accumulated),
            **{"real": f"*{real}", "weights": "*fp32", "offsets": "*i64", "classes": "*i64", "factor": "fp32"},
        }
        jobs = [(kernels.match_sums, "match_sums", {"WEIGHTED": weighted}) for weighted in (False, True)]
        if real in ("fp32", "fp64"):
            jobs.append((kernels.match_differences, "match_differences", {}))
            jobs += [(kernels.match_pull, "match_pull", {"SCALED": scaled}) for scaled in (False, True)]
        for kernel, config, constants in jobs:
            rows.append(compile_for_sm_90(kernel, config, kinds, {"ACC": acc, **constants}))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
