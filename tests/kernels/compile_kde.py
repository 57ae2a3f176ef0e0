"""The kernels of kernels/kde.py for sm_90, at every precision."""

import itertools
from collections.abc import Iterator

import triton.language as tl
from aot import Job

from fastdd.kernels import kde as kernels


def jobs() -> Iterator[Job]:
    for dot, masked in itertools.product(("tf32x3", "tf32", "ieee", "fp64"), (False, True)):
        wide = dot == "fp64"
        value = "fp64" if wide else "fp32"
        floats = ("q", "x", "q_norms", "x_norms", "log_weights", "maxima", "sums")
        kinds = {**dict.fromkeys(floats, f"*{value}"), "starts": "*i64", "ends": "*i64", "scale": f"*{value}"}
        constants = {
            "ACC": tl.float64 if wide else tl.float32,
            "DOT": "ieee" if wide else dot,
            "SEGMENTED": masked,
            "LEAVE_ONE_OUT": masked,
        }
        # The launcher pads columns to a multiple of 16.
        constants["NARROW"] = False
        yield Job(kernels.kde_sums, f"kde_{dot}", kinds, constants, ("n_columns",))
        if dot.startswith("tf32"):
            for columns in (16, 128):
                narrow = {**constants, "NARROW": True, "COLUMNS": columns}
                yield Job(kernels.kde_sums, f"kde_{dot}_narrow", kinds, narrow, ("n_columns",))
