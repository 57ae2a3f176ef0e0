"""Every kernel of kernels/segment_mean.py as launches specialise it on sm_90."""

import itertools
from collections.abc import Iterator

import triton.language as tl
from aot import Job

from fastdd.kernels import segment_mean as kernels


def jobs() -> Iterator[Job]:
    for x, weighted, split in itertools.product(("fp32", "bf16", "fp16", "fp64"), (False, True), (False, True)):
        wide = x == "fp64"
        acc, accumulated = (tl.float64, "*fp64") if wide else (tl.float32, "*fp32")
        kinds = {
            **{"x": f"*{x}", "g": accumulated, "offsets": "*i64", "weights": "*fp32"},
            **dict.fromkeys(("out", "totals", "partials"), accumulated),
        }
        parts = [(kernels.segment_sums, "segment_sums", {"ACC": acc, "WEIGHTED": weighted, "SPLIT": split})]
        if x in ("fp32", "fp64") and not split:
            parts.append((kernels.segment_spread_rows, "segment_spread", {"ACC": acc, "WEIGHTED": weighted}))
            if weighted:
                parts.append((kernels.segment_totals, "segment_totals", {"ACC": acc}))
                parts.append((kernels.segment_finish, "segment_finish", {"ACC": acc}))
        for kernel, config, constants in parts:
            yield Job(kernel, config, kinds, constants)
