"""Compiles the kernel of kernels/turns.py for sm_90, without a GPU; prints what it uses."""

import itertools
import json
import math

import triton.language as tl
from aot import compile_for_sm_90

from fastdd.kernels import turns as kernels


def main() -> None:
    rows = []
    for dtype, adam, own in itertools.product(("fp32", "fp64"), (False, True), (False, True)):
        kinds = {
            **dict.fromkeys(("images", "momentum", "second", "gradient"), f"*{dtype}"),
            "lr": "*fp64",
            "done": "*i64",
        }
        constants = {
            **{"ACC": tl.float64 if dtype == "fp64" else tl.float32, "DECAY": 0.5, "LOG_DECAY": math.log(0.5)},
            **{"WEIGHT_DECAY": 0.01, "ADAM": adam, "OWN": own},
        }
        rows.append(compile_for_sm_90(kernels.turns_moves, "turns_moves", kinds, constants))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
