"""Every kernel of kernels/norm_act_pool as launches specialise it on sm_90."""

import itertools
from collections.abc import Iterator

import torch
import triton.language as tl
from aot import Job

from fastdd.kernels import norm_act_pool as kernels
from fastdd.reference.norm_act_pool import POOLS

KERNELS = {
    "forward": kernels.norm_act_pool_forward,
    "gradient": kernels.norm_act_pool_gradient,
    "second": kernels.norm_act_pool_second,
}
IMAGES = ("x", "y", "g", "dx", "u", "to_g", "to_x")
VECTORS = ("weight", "bias", "stats", "sums", "vw", "vb", "first", "second")


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


def jobs() -> Iterator[Job]:
    # Of equal ones, one.
    different = {}
    for x, dtype in DTYPES.items():
        wide, acc = ("fp64", tl.float64) if x == "fp64" else ("fp32", tl.float32)
        kinds = {**dict.fromkeys(IMAGES, f"*{x}"), **dict.fromkeys(VECTORS, f"*{wide}")}
        for (name, kernel), size, pool in itertools.product(KERNELS.items(), (8, 16, 32, 64), POOLS):
            config = kernels.row(name, torch.empty(0, size, size, 0, dtype=dtype), pool)
            constants = {"ACC": acc, "POOL": pool, **({"EPS": 1e-5} if name == "forward" else {"AFFINE": True})}
            # Channels that are no multiple of 16 are read one by one, which takes more registers.
            for aligned in (("channels",), ()) if pool == "max" else (("channels",),):
                different[config, x, pool, aligned] = kernel, config, kinds, constants, aligned
            if name != "forward" and pool == "avg":
                different[config, x, "alone"] = kernel, config, kinds, {**constants, "AFFINE": False}, ("channels",)
        different["norm_act_pool_sums", acc] = kernels.norm_act_pool_sums, "norm_act_pool_sums", kinds, {"ACC": acc}
    return (Job(*job) for job in different.values())
