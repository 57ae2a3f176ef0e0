"""Every kernel of kernels/conv3x3 as launches specialise it on sm_90."""

import itertools
from collections.abc import Iterator

from aot import Job

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


def jobs() -> Iterator[Job]:
    split = {"x": "*fp32", "parts": "*bf16"}
    for aligned in (("n",), ()):
        yield Job(kernels.split, "conv3x3_split", split, {}, aligned)
    for sizes in SIZES:
        for name, bias, adjoint in (("", True, False), ("", False, True), ("_small", True, False)):
            constants = {"BIAS": bias, "ADJOINT": adjoint, "UPCAST": False, **sizes}
            yield Job(kernels.conv3x3_tiles, f"conv3x3_tiles{name}", KINDS, constants, ALIGNED)
        constants = {"UPCAST": False, **sizes}
        yield Job(kernels.conv3x3_weight_tiles, "conv3x3_weight", KINDS, constants, ALIGNED)
    for pixels, pool in itertools.product((16, 64, 256), POOLS):
        config = "conv_block_256" if pixels == 256 else "conv_block_128"
        constants = {"POOL": pool, "UPCAST": False, "PIXELS": pixels}
        yield Job(kernels.conv_block_whole, config, KINDS, constants, ALIGNED)
