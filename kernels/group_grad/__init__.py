"""Triton kernels of the grouped products. Their tests passed on an H200 before work items were looked up in the
offsets; since then they have not run on a GPU, and ``convolve_tiles`` never.

A segment's rows are cut into work items of a length that depends on shapes alone; the number of items is bounded by
shapes too, and each program looks up its own segment in the offsets, so the host never sees them and a long segment
occupies as many programs as its share of the rows. A segment of one item, or of none, is written at once; the items
of a longer one are added in order by a second kernel, where there can be any. No atomics.

Convolutions are not unfolded. Row r of the product is a position of an output, column c an input channel at one tap of
the kernel, and the operand is read at its place in the channels-last image:

    tap     one program has columns of one tap: the address is a row's plus a constant (wide inputs)
    flat    columns run over all taps, (ky, kx, c) with c fastest (few channels, as in a first layer)
    rows    a linear layer, or a 1x1 convolution of stride 1

float32 is multiplied as three TF32 products (relative error about 2^-21), narrower types as they are, all summed in
float32.
"""

import contextlib

import torch
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.group_grad.convolve import convolve_tiles
from fastdd.kernels.group_grad.matmul import matmul_tiles
from fastdd.kernels.group_grad.outer import outer_finish, outer_tiles

# Programs that fill a large GPU about four times over. One number for all: results do not depend on the GPU's size.
_PROGRAMS = 528
# Shorter items would spend more than a fifth of their memory traffic on partial sums.
_MIN_ITEM_ROWS = 512
# Fewer channels than this leave most columns of a tap's block empty.
_FLAT_BELOW = 64


def _on(device: torch.device):
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _types(dtype: torch.dtype) -> tuple[str, tl.dtype, str, torch.dtype]:
    """Suffix of the row in the table, accumulator, how tensor cores multiply, and dtype of the result."""
    if dtype == torch.float64:
        return "_fp64", tl.float64, "ieee", torch.float64
    if dtype == torch.float32:
        return "_fp32", tl.float32, "tf32x3", torch.float32
    return "", tl.float32, "ieee", torch.float32


def item_rows(rows: int, blocks: int, step: int) -> int:
    """Rows of a work item, a multiple of ``step``: enough to fill a GPU, but none shorter than its sums are worth.

    >>> item_rows(655_360, 9, 32), item_rows(2560, 2, 32)
    (11200, 512)
    """
    wanted = max(_MIN_ITEM_ROWS, -(-rows * blocks // _PROGRAMS))
    return -(-wanted // step) * step


def _outer(x: Tensor, b: Tensor, weights: Tensor | None, offsets: Tensor, out: Tensor, geometry: dict, layout) -> None:
    """Fill out [S, Q, ...] from rows of x and b in channels-last memory."""
    segments, size = out.shape[0], out[0].numel() if len(out) else 0
    if segments == 0 or size == 0:
        return
    suffix, acc, precision, _ = _types(b.dtype)
    taps, groups = geometry["taps"], geometry["groups"]
    channels, outputs = geometry["group_channels"], geometry["group_outputs"]
    if layout == "flat":
        row = "outer_flat" + suffix
    elif b.element_size() == 2 and any(n % 16 for n in (geometry["channels"], channels, outputs)):
        # Two bytes to a load: a tile passes through registers, an address for each, and only a smaller one fits.
        row = "outer_tiles_odd"
    else:
        row = "outer_tiles" + suffix
    options = config(row, x.device)
    if layout == "flat":
        column_blocks = -(-taps * channels // options["COLUMNS"])
    else:
        column_blocks = taps * -(-channels // options["COLUMNS"])
    blocks = groups * column_blocks * -(-outputs // options["OUTPUTS"])
    rows = b.numel() // (groups * outputs)
    length = item_rows(rows, blocks, options["ROWS"])
    # No more items than this, whatever the offsets: each segment rounds up at most once.
    items = rows // length + segments
    several = rows > length  # else no segment can be longer than an item
    partials = out.new_empty((items, size)) if several else out
    with _on(x.device):
        outer_tiles[(items * blocks,)](
            x,
            b,
            b if weights is None else weights.contiguous(),
            offsets,
            out,
            partials,
            segments,
            item_rows=length,
            **geometry,
            LAYOUT=layout,
            WEIGHTED=weights is not None,
            UPCAST=x.device.type == "cpu",
            PRECISION=precision,
            ACC=acc,
            **options,
        )
        if several:
            options = config("outer_finish", x.device)
            grid = (segments * -(-size // options["COLUMNS"]),)
            outer_finish[grid](partials, offsets, out, size, segments, geometry["positions"], length, acc, **options)


def grouped_outer(a: Tensor, b: Tensor, weights: Tensor | None, offsets: Tensor, rows: int) -> Tensor:
    """Launches for :func:`fastdd.ops.grouped.grouped_outer`."""
    a, b, offsets = a.contiguous(), b.contiguous(), offsets.contiguous()
    out = a.new_empty((offsets.shape[0] - 1, b.shape[1], a.shape[1]), dtype=_types(a.dtype)[3])
    geometry = {
        **dict.fromkeys(("height", "width", "out_width", "stride_y", "stride_x", "step_y", "step_x"), 1),
        **{"positions": rows, "channels": a.shape[1], "pad_y": 0, "pad_x": 0, "taps": 1, "kernel_width": 1},
        **{"group_channels": a.shape[1], "group_outputs": b.shape[1], "groups": 1},
    }
    _outer(a, b, weights, offsets, out, geometry, "rows")
    return out


def grouped_conv_weight(
    x: Tensor,
    b: Tensor,
    offsets: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Launches for :func:`fastdd.ops.grouped.grouped_conv_weight`."""
    (_, channels, height, width), (_, outputs, out_height, out_width) = x.shape, b.shape
    out = x.new_empty((offsets.shape[0] - 1, outputs, channels // groups, *kernel), dtype=_types(x.dtype)[3])
    geometry = {
        **{"positions": out_height * out_width, "height": height, "width": width, "channels": channels},
        **{"out_width": out_width, "stride_y": stride[0], "stride_x": stride[1]},
        **{"pad_y": padding[0], "pad_x": padding[1], "step_y": dilation[0], "step_x": dilation[1]},
        **{"taps": kernel[0] * kernel[1], "kernel_width": kernel[1], "groups": groups},
        **{"group_channels": channels // groups, "group_outputs": outputs // groups},
    }
    if kernel == [1, 1] and stride == [1, 1] and padding == [0, 0]:
        layout = "rows"
    else:
        layout = "flat" if channels // groups < _FLAT_BELOW else "tap"
    x, b = (t.permute(0, 2, 3, 1).contiguous() for t in (x, b))
    _outer(x, b, None, offsets.contiguous(), out, geometry, layout)
    return out


def grouped_matmul(x: Tensor, g: Tensor, weights: Tensor | None, offsets: Tensor, rows: int) -> Tensor:
    """Launches for :func:`fastdd.ops.grouped.grouped_matmul`."""
    x, offsets = x.contiguous(), offsets.contiguous()
    segments, _, columns = g.shape
    out = g.new_empty((len(x), columns))
    if out.numel() == 0:
        return out
    suffix, acc, precision, _ = _types(g.dtype)
    options = config("matmul_tiles" + suffix, x.device)
    items = len(x) // options["ROWS"] + segments
    with _on(x.device):
        matmul_tiles[(items * -(-columns // options["COLUMNS"]),)](
            x,
            g,
            x if weights is None else weights.contiguous(),
            offsets,
            out,
            segments,
            rows,
            x.shape[1],
            columns,
            *g.stride(),
            WEIGHTED=weights is not None,
            PRECISION=precision,
            ACC=acc,
            **options,
        )
    return out


def grouped_conv(
    x: Tensor,
    g: Tensor,
    offsets: Tensor,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    adjoint: bool,
) -> Tensor:
    """Launches for ``fastdd::grouped_conv``: one."""
    n, _, height, width = x.shape
    segments, outputs, group_channels, *kernel = g.shape
    x, offsets = x.permute(0, 2, 3, 1).contiguous(), offsets.contiguous()
    if g.stride(3) != kernel[1] * g.stride(4):  # else taps are evenly spaced
        g = g.contiguous()
    of_segment, of_output, of_channel, _, of_tap = g.stride()
    inner, columns = (outputs // groups, group_channels) if adjoint else (group_channels, outputs // groups)
    of_inner, of_column = (of_output, of_channel) if adjoint else (of_channel, of_output)
    out = g.new_empty((n, *size, groups * columns))
    if out.numel() == 0:
        return out.permute(0, 3, 1, 2)
    suffix, acc, precision, _ = _types(g.dtype)
    options = config("convolve_tiles" + suffix, x.device)
    positions = size[0] * size[1]
    items = n * positions // options["ROWS"] + segments
    with _on(x.device):
        convolve_tiles[(items * groups * -(-columns // options["COLUMNS"]),)](
            *(x, g, offsets, out, segments, positions, height, width, size[1]),
            *(*stride, *padding, *dilation, kernel[0] * kernel[1], kernel[1], groups, inner, columns),
            *(of_segment, outputs // groups * of_output, of_inner, of_column, of_tap),
            ADJOINT=adjoint,
            PRECISION=precision,
            ACC=acc,
            **options,
        )
    return out.permute(0, 3, 1, 2)
