"""Triton kernels of 3x3 convolutions in float32 on tensor cores: forward, both gradients, and a block in one.

Never run on a GPU so far; cuDNN runs instead, unless it is asked for (:func:`fastdd.kernels.config.convolutions`).

An operand is split in three bfloat16 parts, 8 bits each, and so exactly; of the nine products of two operands' parts,
the six largest are summed in float32 (Henry, Tang and Heinecke, arXiv:1904.06376). Of 128 channels, the error against
float64, relative to the norm: plain float32 2.5e-7; six products 1.2e-7, five 2.8e-6, the three largest 4.4e-6;
TF32 in two parts, three products 1.4e-7 (half the rate of bfloat16: as much time, and 8 bytes an element, not 6).
Tensor cores cut sums off instead of rounding them (Fasi et al., PeerJ Computer Science 2021): in one accumulator
for all of it that gives 1.0e-5, by the model in tests/ops/test_split_conv.py. So what a step of the loop sums
is added to the rest by ordinary float32 additions: 1.2e-7.

No atomics: two runs are bitwise equal.
"""

import torch
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.conv3x3.forward import conv3x3_tiles, conv_block_whole
from fastdd.kernels.conv3x3.parts import split
from fastdd.kernels.conv3x3.weight import conv3x3_weight_tiles
from fastdd.kernels.segment_mean import on

# A step of the tensor cores, and what makes copies of 16 bytes: other numbers of channels, as the images' colours, stay
# with cuDNN.
CHANNELS = 16
# The pixels of an image, in windows of 2x2, that one program can hold.
MOST_PIXELS = 256
# Tiles of 128x128 that fill a large GPU. One number for all: results do not depend on the GPU's size.
_PROGRAMS = 132
# Pixels that a program of the weight gradient goes over, at the least.
_MIN_PIXELS = 512


def _split(x: Tensor) -> Tensor:
    """bfloat16 [3, *x.shape], which sum up to x: one launch."""
    x = x.contiguous()
    parts = x.new_empty((3, *x.shape), dtype=torch.bfloat16)
    options = config("conv3x3_split", x.device)
    if x.numel():
        with on(x.device):
            split[(-(-x.numel() // options["COLUMNS"]),)](x, parts, x.numel(), **options)
    return parts


def row(kernel: str, rows: int, outputs: int) -> str:
    """Name of the row of the table for so many pixels and channels.

    >>> row("conv3x3_tiles", 2560 * 16 * 16, 128), row("conv3x3_tiles", 100 * 8 * 8, 128)
    ('conv3x3_tiles', 'conv3x3_tiles_small')
    """
    few = -(-rows // 128) * -(-outputs // 128) < _PROGRAMS
    return f"{kernel}_small" if few or outputs <= 64 else kernel


def takes(dtype: torch.dtype, inputs: int, outputs: int) -> bool:
    """Whether the kernels compute convolutions of so many channels.

    >>> takes(torch.float32, 128, 48), takes(torch.float32, 3, 128), takes(torch.float32, 0, 128)
    (True, False, False)
    """
    return dtype == torch.float32 and min(inputs, outputs) > 0 and inputs % CHANNELS == outputs % CHANNELS == 0


def conv3x3(x: Tensor, filters: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
    """Launches for ``fastdd::conv3x3``: two to split, one to order the filters, one to convolve."""
    n, height, width, inputs = x.shape
    outputs = filters.shape[1 if adjoint else 0]
    parts = _split(x)
    ordered = _split(filters.permute(2, 3, 0, 1) if adjoint else filters.permute(2, 3, 1, 0))
    y = x.new_empty((n, height, width, outputs))
    pixels = n * height * width
    options = config(row("conv3x3_tiles", pixels, outputs), x.device)
    programs = -(-pixels // options["ROWS"]) * -(-outputs // options["OUTPUTS"])
    shift = None if bias is None else bias.contiguous()
    sizes = x.numel(), filters.numel(), pixels, height, width, inputs, outputs
    with on(x.device):
        conv3x3_tiles[(programs,)](
            *(parts, ordered, y if shift is None else shift, y, *sizes),
            **{"BIAS": shift is not None, "ADJOINT": adjoint, "UPCAST": x.device.type == "cpu", **options},
        )
    return y


def conv3x3_weight(x: Tensor, g: Tensor) -> Tensor:
    """Launches for ``fastdd::conv3x3_weight``: two to split, one of products, one to sum, one to order."""
    n, height, width, inputs = x.shape
    outputs = g.shape[3]
    pixels = n * height * width
    options = config("conv3x3_weight", x.device)
    blocks = 9 * -(-outputs // options["OUTPUTS"]) * -(-inputs // options["INPUTS"])
    splits = max(1, min(-(-4 * _PROGRAMS // blocks), pixels // _MIN_PIXELS))
    share = -(-pixels // (splits * options["ROWS"])) * options["ROWS"]
    splits = -(-pixels // share)
    partials = x.new_empty((splits, 9, outputs, inputs))
    sizes = x.numel(), g.numel(), pixels, share, height, width, inputs, outputs
    with on(x.device):
        conv3x3_weight_tiles[(blocks * splits,)](
            _split(x), _split(g), partials, *sizes, UPCAST=x.device.type == "cpu", **options
        )
    return partials.sum(0).permute(1, 2, 0).reshape(outputs, inputs, 3, 3)


def pack_filters(filters: Tensor) -> Tensor:
    """Launches for ``fastdd::pack_filters``: the filters' parts, which :func:`conv_block` takes; two."""
    return _split(filters.permute(2, 3, 1, 0))


def whole_pixels(height: int, width: int) -> int:
    """Pixels of an image, in windows of 2x2, up to the next power of two: the rows that it takes of a tile.

    >>> whole_pixels(16, 16), whole_pixels(7, 7), whole_pixels(1, 1)
    (256, 64, 16)
    """
    pixels = 4 * -(-height // 2) * -(-width // 2)
    return max(16, 1 << (pixels - 1).bit_length())


def holds(height: int, width: int, padding: int) -> bool:
    """Whether a program of :func:`conv_block` can hold an image of so many pixels.

    Of 32x32 pixels it could hold 16 channels, and would read the image eight times for 128; there are blocks of so many
    pixels and channels in no ConvNet of 32x32, whose first block halves the sides.
    """
    return padding == 1 and min(height, width) >= 2 and whole_pixels(height, width) <= MOST_PIXELS


def conv_block(
    x: Tensor,
    filters: Tensor,
    packed: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    pool: str,
) -> Tensor:
    """Launches for ``fastdd::conv_block``: two."""
    n, height, width, inputs = x.shape
    outputs = len(filters)
    size = (height, width) if pool == "none" else (height // 2, width // 2)
    y = x.new_empty((n, *size, outputs))
    if not y.numel():
        return y
    pixels = whole_pixels(height, width)
    options = config("conv_block_256" if pixels == MOST_PIXELS else "conv_block_128", x.device)
    programs = -(-n // (options["ROWS"] // pixels)) * -(-outputs // options["OUTPUTS"])
    sizes = x.numel(), filters.numel(), n, height, width, inputs, outputs
    with on(x.device):
        conv_block_whole[(programs,)](
            *(_split(x), packed, weight.contiguous(), bias.contiguous(), y, *sizes, eps),
            **{"UPCAST": x.device.type == "cpu", "POOL": pool, "PIXELS": pixels, **options},
        )
    return y
