"""Compiles every kernel of kernels/conv3x3 for sm_90, without a GPU; prints what each uses."""

import itertools
import json

from aot import compile_for_sm_90

from fastdd.kernels import conv3x3 as kernels
from fastdd.reference.norm_act_pool import POOLS

KINDS = {
    **dict.fromkeys(("x", "filters", "g"), "*bf16"),
    **dict.fromkeys(("bias", "weight", "y", "partials"), "*fp32"),
    **{"x_size": "i64", "eps": "fp32"},
}
# As the launch specialises them: channels are multiples of 16. Ones are constants to a launch.
ALIGNED = ("x_size", "filters_size", "g_size", "inputs", "outputs", "split_pixels")
SIZES = ({}, {"height": 1, "width": 1})


def main() -> None:
    split = {"x": "*fp32", "parts": "*bf16"}
    rows = [compile_for_sm_90(kernels.split, "conv3x3_split", split, {}, aligned) for aligned in (("n",), ())]
    for sizes in SIZES:
        for name, bias, adjoint in (("", True, False), ("", False, True), ("_small", True, False)):
            constants = {"BIAS": bias, "ADJOINT": adjoint, "UPCAST": False, **sizes}
            rows.append(compile_for_sm_90(kernels.conv3x3_tiles, f"conv3x3_tiles{name}", KINDS, constants, ALIGNED))
        constants = {"UPCAST": False, **sizes}
        rows.append(compile_for_sm_90(kernels.conv3x3_weight_tiles, "conv3x3_weight", KINDS, constants, ALIGNED))
    for pixels, pool in itertools.product((16, 64, 256), POOLS):
        config = "conv_block_256" if pixels == 256 else "conv_block_128"
        constants = {"POOL": pool, "UPCAST": False, "PIXELS": pixels}
        rows.append(compile_for_sm_90(kernels.conv_block_whole, config, KINDS, constants, ALIGNED))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
