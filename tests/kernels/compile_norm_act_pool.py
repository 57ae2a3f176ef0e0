"""Compiles every kernel of kernels/norm_act_pool.py for sm_90, without a GPU; prints what each uses."""

import itertools
import json

import triton.language as tl
from aot import compile_for_sm_90

from fastdd.kernels import norm_act_pool as kernels
from fastdd.kernels.config import table
from fastdd.reference.norm_act_pool import POOLS

KERNELS = {
    "norm_act_pool_forward": kernels.norm_act_pool_forward,
    "norm_act_pool_gradient": kernels.norm_act_pool_gradient,
    "norm_act_pool_second": kernels.norm_act_pool_second,
}
IMAGES = ("x", "y", "g", "dx", "u", "to_g", "to_x")
VECTORS = ("weight", "bias", "stats", "sums", "vw", "vb", "first", "second")


def main() -> None:
    rows = []
    for config in table("sm_90"):
        name, _, suffix = config.rpartition("_")
        if config == "norm_act_pool_sums":
            for acc, wide in ((tl.float32, "*fp32"), (tl.float64, "*fp64")):
                kinds = {**dict.fromkeys(VECTORS, wide), "channels": "i32:16"}
                rows.append(compile_for_sm_90(kernels.norm_act_pool_sums, config, kinds, {"ACC": acc}))
        elif name in KERNELS:
            kernel = KERNELS[name]
            for x, pool in itertools.product(("fp32", "bf16") if suffix.isdigit() else (suffix,), POOLS):
                wide, acc = ("fp64", tl.float64) if x == "fp64" else ("fp32", tl.float32)
                constants = {"ACC": acc, "POOL": pool, **({"EPS": 1e-5} if "EPS" in kernel.arg_names else {})}
                kinds = {**dict.fromkeys(IMAGES, f"*{x}"), **dict.fromkeys(VECTORS, f"*{wide}")}
                # Channels that are no multiple of 16 are read one by one, which takes more registers.
                for channels in ("i32:16", "i32") if pool == "max" else ("i32:16",):
                    rows.append(compile_for_sm_90(kernel, config, {**kinds, "channels": channels}, constants))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
