"""Every kernel of kernels/cf_match.py as launches specialise it on sm_90."""

from collections.abc import Iterator

import triton.language as tl
from aot import Job

from fastdd.kernels import cf_match as kernels


def jobs() -> Iterator[Job]:
    for real in ("fp32", "bf16", "fp16", "fp64"):
        wide = real == "fp64"
        value = "*fp64" if wide else "*fp32"
        kinds = {
            **dict.fromkeys(("t", "shares", "sums", "g", "slopes", "out"), value),
            **{"x": f"*{real}", "offsets": "*i64", "classes": "*i64"},
        }
        constants = {"ACC": tl.float64 if wide else tl.float32, "DOT": "ieee" if wide else "tf32x3", "SHARED": False}
        for kernel, name in (
            (kernels.cf_sums, "cf_sums"),
            (kernels.cf_slopes, "cf_slopes"),
            (kernels.cf_products, "cf_products"),
        ):
            config = f"{name}_fp64" if wide else name
            yield Job(kernel, config, kinds, constants, ("n_columns", "n_here", "n_frequencies"))
