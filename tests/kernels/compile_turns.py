"""The kernel of kernels/turns.py as launches specialise it on sm_90."""

import itertools
import math
from collections.abc import Iterator

import triton.language as tl
from aot import Job

from fastdd.kernels import turns as kernels


def jobs() -> Iterator[Job]:
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
        yield Job(kernels.turns_moves, "turns_moves", kinds, constants)
