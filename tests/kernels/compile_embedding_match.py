"""Every kernel of kernels/embedding_match.py as launches specialise it on sm_90."""

from collections.abc import Iterator

import triton.language as tl
from aot import Job

from fastdd.kernels import embedding_match as kernels


def jobs() -> Iterator[Job]:
    for real in ("fp32", "bf16", "fp16", "fp64"):
        acc, accumulated = (tl.float64, "*fp64") if real == "fp64" else (tl.float32, "*fp32")
        floats = ["synthetic", "sums", "split_totals", "totals", "distances", "differences", "scale", "x", "out"]
        kinds = {
            **dict.fromkeys(floats, accumulated),
            **{"real": f"*{real}", "weights": "*fp32", "offsets": "*i64", "classes": "*i64", "factor": "fp32"},
        }
        parts = [(kernels.match_sums, "match_sums", {"WEIGHTED": weighted}) for weighted in (False, True)]
        if real in ("fp32", "fp64"):
            parts.append((kernels.match_differences, "match_differences", {}))
            parts += [(kernels.match_pull, "match_pull", {"SCALED": scaled}) for scaled in (False, True)]
        for kernel, config, constants in parts:
            yield Job(kernel, config, kinds, {"ACC": acc, **constants})
