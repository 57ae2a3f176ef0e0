"""Compiles what is tried on a GPU to tune kernels/conv3x3 for sm_90, without one; prints what each uses."""

from collections.abc import Iterator

from aot import Job
from compile_conv3x3 import ALIGNED, KINDS

from fastdd.bench.framework.tune import CANDIDATES
from fastdd.kernels import conv3x3 as kernels

_TILES = kernels.conv3x3_tiles, {"BIAS": False, "ADJOINT": True}
KERNELS = {
    "conv3x3_tiles": _TILES,
    "conv3x3_tiles_small": _TILES,
    "conv3x3_weight": (kernels.conv3x3_weight_tiles, {}),
    "conv_block_256": (kernels.conv_block_whole, {"POOL": "avg", "PIXELS": 256}),
    "conv_block_128": (kernels.conv_block_whole, {"POOL": "avg", "PIXELS": 64}),
}


def jobs() -> Iterator[Job]:
    for name, candidates in CANDIDATES.items():
        kernel, constants = KERNELS[name]
        for row in candidates:
            yield Job(kernel, name, KINDS, {"UPCAST": False, **constants}, ALIGNED, row)
