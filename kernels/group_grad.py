"""Triton kernels of the grouped products. Their tests pass on an H200.

A segment's rows are cut into work items of a length that depends on shapes alone; the number of items is bounded by
shapes too, and each program looks up its own segment, so the host never sees the offsets and a long segment occupies as
many programs as its share of the rows. A segment of one item is written at once; the items of a longer one are added
in order by a second kernel. No atomics.

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
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config

# Programs that fill a large GPU about four times over. One number for all: results do not depend on the GPU's size.
_PROGRAMS = 528
# Shorter items would spend more than a fifth of their memory traffic on partial sums.
_MIN_ITEM_ROWS = 512
# Fewer channels than this leave most columns of a tap's block empty.
_FLAT_BELOW = 64


@triton.jit
def segment_of(starts, item, n_segments, SEARCH: tl.constexpr):
    """How many segments have all their items before this one."""
    i_s = 0
    for i in range(0, n_segments, SEARCH):
        o_s = i + tl.arange(0, SEARCH)
        m_s = o_s < n_segments
        before = tl.load(starts + 1 + o_s, mask=m_s, other=0) <= item
        i_s += tl.sum((before & m_s).to(tl.int32), axis=0)
    return i_s


@triton.jit
def block_of_program(
    taps, group_channels, group_outputs, groups, LAYOUT: tl.constexpr, OUTPUTS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Its work item, group, block of outputs and block of columns.

    Columns fastest: the blocks that read the same rows of b run side by side.
    """
    if LAYOUT == "flat":
        column_blocks = tl.cdiv(taps * group_channels, COLUMNS)
    else:
        column_blocks = taps * tl.cdiv(group_channels, COLUMNS)
    output_blocks = tl.cdiv(group_outputs, OUTPUTS)
    pid = tl.program_id(0)
    i_p = pid % column_blocks
    i_q = (pid // column_blocks) % output_blocks
    i_g = (pid // (column_blocks * output_blocks)) % groups
    return pid // (column_blocks * output_blocks * groups), i_g, i_q, i_p


@triton.jit
def columns_of_block(i_p, taps, group_channels, LAYOUT: tl.constexpr, COLUMNS: tl.constexpr):
    """Channel within the group and tap of the columns, and which columns there are."""
    if LAYOUT == "flat":
        o_p = i_p * COLUMNS + tl.arange(0, COLUMNS)
        return o_p % group_channels, o_p // group_channels, o_p < taps * group_channels
    else:
        tap_blocks = tl.cdiv(group_channels, COLUMNS)
        o_c = (i_p % tap_blocks) * COLUMNS + tl.arange(0, COLUMNS)
        return o_c, i_p // tap_blocks, o_c < group_channels


@triton.jit
def rows_of_item(item, i_s, starts, offsets, positions, item_rows):
    """First row and number of rows of a segment's work item, and whether it is the segment's only one."""
    first = tl.load(starts + i_s)
    single = tl.load(starts + i_s + 1) - first == 1
    start = tl.load(offsets + i_s) * positions + (item - first) * item_rows
    end = tl.minimum(tl.load(offsets + i_s + 1) * positions, start + item_rows)
    # Rows count from the item's start: 32 bits, and a short division for each, are enough for those.
    return start, (end - start).to(tl.int32), single


@triton.jit
def read_at_taps(x, row, y, z, m_r, o_c, m_p, shift_y, shift_x, height, width, channels, LAYOUT: tl.constexpr):
    """Channels o_c (counted over all groups) of pixels, row, at y and z, moved by taps, [ROWS, COLUMNS]; 0 outside."""
    if LAYOUT == "tap":
        y += shift_y
        z += shift_x
        inside = m_r & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        row = (row + shift_y * width + shift_x) * channels
        return tl.load(x + row[:, None] + o_c[None, :], mask=inside[:, None] & m_p[None, :], other=0.0)
    else:
        y2 = y[:, None] + shift_y[None, :]
        z2 = z[:, None] + shift_x[None, :]
        inside = (y2 >= 0) & (y2 < height) & (z2 >= 0) & (z2 < width)
        o_x = row[:, None] * channels + ((shift_y * width + shift_x) * channels + o_c)[None, :]
        return tl.load(x + o_x, mask=m_r[:, None] & m_p[None, :] & inside, other=0.0)


@triton.jit
def outer_tiles(
    x,
    b,
    weights,
    offsets,
    starts,
    out,
    partials,
    n_segments,
    positions,
    item_rows,
    height,
    width,
    channels,
    out_width,
    stride_y,
    stride_x,
    pad_y,
    pad_x,
    step_y,
    step_x,
    taps,
    kernel_width,
    group_channels,
    group_outputs,
    groups,
    LAYOUT: tl.constexpr,
    WEIGHTED: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    SEARCH: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    item, i_g, i_q, i_p = block_of_program(taps, group_channels, group_outputs, groups, LAYOUT, OUTPUTS, COLUMNS)
    i_s = segment_of(starts, item, n_segments, SEARCH)
    if i_s >= n_segments:
        return
    start, n_rows, single = rows_of_item(item, i_s, starts, offsets, positions, item_rows)
    sample = start // positions
    position = (start % positions).to(tl.int32)

    o_q = i_q * OUTPUTS + tl.arange(0, OUTPUTS)
    m_q = o_q < group_outputs
    o_c, tap, m_p = columns_of_block(i_p, taps, group_channels, LAYOUT, COLUMNS)
    shift_y = (tap // kernel_width) * step_y - pad_y
    shift_x = (tap % kernel_width) * step_x - pad_x

    # [OUTPUTS, COLUMNS]
    b_sum = tl.zeros((OUTPUTS, COLUMNS), dtype=ACC)
    for i in range(0, n_rows, ROWS):
        o_i = i + tl.arange(0, ROWS)
        m_r = o_i < n_rows
        # 64 bits: rows times columns passes 2^31 for batches that fit a GPU.
        o_r = start + o_i
        o_b = o_r[:, None] * (groups * group_outputs) + (i_g * group_outputs + o_q)[None, :]
        b_b = tl.load(b + o_b, mask=m_r[:, None] & m_q[None, :], other=0.0)
        ahead = (position + o_i) // positions
        if LAYOUT == "rows":
            o_x = o_r[:, None] * channels + (i_g * group_channels + o_c)[None, :]
            b_x = tl.load(x + o_x, mask=m_r[:, None] & m_p[None, :], other=0.0)
        else:
            place = position + o_i - ahead * positions
            y = (place // out_width) * stride_y
            z = (place % out_width) * stride_x
            row = ((sample + ahead) * height + y) * width + z
            o_g = i_g * group_channels + o_c
            b_x = read_at_taps(x, row, y, z, m_r, o_g, m_p, shift_y, shift_x, height, width, channels, LAYOUT)
        if UPCAST:
            b_b = b_b.to(ACC)
            b_x = b_x.to(ACC)
        if WEIGHTED:
            b_w = tl.load(weights + sample + ahead, mask=m_r, other=0.0).to(ACC)
            b_b = (b_b.to(ACC) * b_w[:, None]).to(b_b.dtype)
        b_sum = tl.dot(tl.trans(b_b), b_x, b_sum, input_precision=PRECISION, out_dtype=ACC)

    o_out = (i_g * group_outputs + o_q)[:, None] * (group_channels * taps) + (o_c * taps + tap)[None, :]
    size = groups * group_outputs * group_channels * taps
    mask = m_q[:, None] & m_p[None, :]
    if single:
        tl.store(out + i_s.to(tl.int64) * size + o_out, b_sum, mask=mask)
    else:
        tl.store(partials + item.to(tl.int64) * size + o_out, b_sum, mask=mask)


@triton.jit
def outer_finish(partials, starts, out, size, ACC: tl.constexpr, COLUMNS: tl.constexpr):
    blocks = tl.cdiv(size, COLUMNS)
    i_s = (tl.program_id(0) // blocks).to(tl.int64)
    first = tl.load(starts + i_s)
    last = tl.load(starts + i_s + 1)
    if last - first == 1:
        return
    o_c = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    m_c = o_c < size
    b_sum = tl.zeros((COLUMNS,), dtype=ACC)
    for item in range(first, last):
        b_sum += tl.load(partials + item * size + o_c, mask=m_c, other=0.0)
    tl.store(out + i_s * size + o_c, b_sum, mask=m_c)


@triton.jit
def matmul_tiles(
    x,
    g,
    weights,
    offsets,
    starts,
    out,
    n_segments,
    positions,
    inner,
    columns,
    g_segment,
    g_inner,
    g_column,
    WEIGHTED: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    SEARCH: tl.constexpr,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    blocks = tl.cdiv(columns, COLUMNS)
    i_m = tl.program_id(0) % blocks
    item = tl.program_id(0) // blocks
    i_s = segment_of(starts, item, n_segments, SEARCH)
    if i_s >= n_segments:
        return
    end = tl.load(offsets + i_s + 1) * positions
    o_r = tl.load(offsets + i_s) * positions + (item - tl.load(starts + i_s)) * ROWS + tl.arange(0, ROWS)
    m_r = o_r < end
    o_m = i_m * COLUMNS + tl.arange(0, COLUMNS)
    m_m = o_m < columns
    g += i_s.to(tl.int64) * g_segment
    b_sum = tl.zeros((ROWS, COLUMNS), dtype=ACC)
    for i in range(0, inner, INNER):
        o_k = i + tl.arange(0, INNER)
        m_k = o_k < inner
        b_x = tl.load(x + o_r[:, None] * inner + o_k[None, :], mask=m_r[:, None] & m_k[None, :], other=0.0).to(ACC)
        o_g = o_k[:, None].to(tl.int64) * g_inner + o_m[None, :].to(tl.int64) * g_column
        b_g = tl.load(g + o_g, mask=m_k[:, None] & m_m[None, :], other=0.0)
        b_sum = tl.dot(b_x, b_g, b_sum, input_precision=PRECISION, out_dtype=ACC)
    if WEIGHTED:
        b_w = tl.load(weights + o_r // positions, mask=m_r, other=0.0).to(ACC)
        b_sum *= b_w[:, None]
    tl.store(out + o_r[:, None] * columns + o_m[None, :], b_sum, mask=m_r[:, None] & m_m[None, :])


def _on(device: torch.device):
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _types(dtype: torch.dtype) -> tuple[str, tl.dtype, str, torch.dtype]:
    """Suffix of the row in the table, accumulator, how tensor cores multiply, and dtype of the result."""
    if dtype == torch.float64:
        return "_fp64", tl.float64, "ieee", torch.float64
    if dtype == torch.float32:
        return "_fp32", tl.float32, "tf32x3", torch.float32
    return "", tl.float32, "ieee", torch.float32


def _items(offsets: Tensor, positions: int, rows: int) -> Tensor:
    """Where the work items of every segment start, [S+1]; a segment has one for every ``rows`` rows."""
    counts = (offsets.diff() * positions + (rows - 1)) // rows
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


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
    starts = _items(offsets, geometry["positions"], length)
    # No more items than this, whatever the offsets: each segment rounds up at most once.
    items = rows // length + segments
    # Where no segment can be longer than an item nothing is written there.
    partials = out.new_empty((items, size)) if rows > length else out
    with _on(x.device):
        outer_tiles[(items * blocks,)](
            x,
            b,
            b if weights is None else weights.contiguous(),
            offsets,
            starts,
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
        options = config("outer_finish", x.device)
        outer_finish[(segments * -(-size // options["COLUMNS"]),)](partials, starts, out, size, acc, **options)


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
    starts = _items(offsets, rows, options["ROWS"])
    items = len(x) // options["ROWS"] + segments
    with _on(x.device):
        matmul_tiles[(items * -(-columns // options["COLUMNS"]),)](
            x,
            g,
            x if weights is None else weights.contiguous(),
            offsets,
            starts,
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
