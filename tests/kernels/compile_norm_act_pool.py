"""Compiles every kernel of kernels/norm_act_pool.py for sm_90, without a GPU; prints what each uses."""

import itertools
import json

import triton.language as tl
from aot import compile_for_sm_90

from fastdd.kernels import norm_act_pool as kernels
from fastdd.reference.norm_act_pool import POOLS

ROWS = {
    "norm_act_pool_forward_16": kernels.norm_act_pool_forward,
    "norm_act_pool_forward_64": kernels.norm_act_pool_forward,
    "norm_act_pool_forward_256": kernels.norm_act_pool_forward,
    "norm_act_pool_forward_loop": kernels.norm_act_pool_forward,
    "norm_act_pool_gradient": kernels.norm_act_pool_gradient,
    "norm_act_pool_second": kernels.norm_act_pool_second,
}
IMAGES = ("x", "y", "g", "dx", "u", "to_g", "to_x")
VECTORS = ("weight", "bias", "stats", "sums", "vw", "vb", "first", "second")


def main() -> None:
    rows = []
    for x in ("fp32", "bf16", "fp64"):
        wide, acc = ("fp64", tl.float64) if x == "fp64" else ("fp32", tl.float32)
        kinds = {**dict.fromkeys(IMAGES, f"*{x}"), **dict.fromkeys(VECTORS, f"*{wide}")}
        for (config, kernel), pool in itertools.product(ROWS.items(), POOLS):
            if config.removeprefix("norm_act_pool_forward_").isdigit() and (x == "fp64" or pool == "none"):
                continue  # see forward_row
            constants = {"ACC": acc, "POOL": pool, **({"EPS": 1e-5} if "EPS" in kernel.arg_names else {})}
            # Channels that are no multiple of 16 are read one by one, which takes more registers.
            for channels in ("i32:16", "i32") if pool == "max" else ("i32:16",):
                rows.append(compile_for_sm_90(kernel, config, {**kinds, "channels": channels}, constants))
        if x != "bf16":
            rows.append(compile_for_sm_90(kernels.norm_act_pool_sums, "norm_act_pool_sums", kinds, {"ACC": acc}))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
