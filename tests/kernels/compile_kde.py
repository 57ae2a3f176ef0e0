"""Compiles kernels/kde.py for sm_90, without a GPU, at every precision; prints what each uses."""

import itertools
import json

import triton.language as tl
from aot import compile_for_sm_90

from fastdd.kernels import kde as kernels


def main() -> None:
    rows = []
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
        rows.append(compile_for_sm_90(kernels.kde_sums, f"kde_{dot}", kinds, constants, ("n_columns",)))
        if dot.startswith("tf32"):
            for columns in (16, 128):
                narrow = {**constants, "NARROW": True, "COLUMNS": columns}
                rows.append(compile_for_sm_90(kernels.kde_sums, f"kde_{dot}_narrow", kinds, narrow, ("n_columns",)))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
