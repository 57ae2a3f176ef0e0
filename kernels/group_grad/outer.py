"""Of every segment, a^T b of its rows: the kernel of its items, and that of a segment with several."""

import triton
import triton.language as tl

from fastdd.kernels.group_grad.segments import items_before, segment_of


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
def rows_of_item(place, i_s, offsets, positions, item_rows):
    """First row and number of rows of a segment's work item."""
    start = tl.load(offsets + i_s) * positions + place * item_rows
    end = tl.minimum(tl.load(offsets + i_s + 1) * positions, start + item_rows)
    # Rows count from the item's start: 32 bits, and a short division for each, are enough for those.
    return start, (end - start).to(tl.int32)


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
    i_s, place, n_items = segment_of(offsets, item, n_segments, positions, item_rows, SEARCH)
    if i_s >= n_segments:
        return
    start, n_rows = rows_of_item(place, i_s, offsets, positions, item_rows)
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
            at = position + o_i - ahead * positions
            y = (at // out_width) * stride_y
            z = (at % out_width) * stride_x
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
    if n_items == 1:
        tl.store(out + i_s.to(tl.int64) * size + o_out, b_sum, mask=mask)
    else:
        tl.store(partials + item.to(tl.int64) * size + o_out, b_sum, mask=mask)


@triton.jit
def outer_finish(
    partials,
    offsets,
    out,
    size,
    n_segments,
    positions,
    item_rows,
    ACC: tl.constexpr,
    SEARCH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    blocks = tl.cdiv(size, COLUMNS)
    i_s = (tl.program_id(0) // blocks).to(tl.int64)
    first, n_items = items_before(offsets, i_s, n_segments, positions, item_rows, SEARCH)
    if n_items == 1:
        return
    o_c = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    m_c = o_c < size
    b_sum = tl.zeros((COLUMNS,), dtype=ACC)
    for item in range(first, first + n_items):
        b_sum += tl.load(partials + item * size + o_c, mask=m_c, other=0.0)
    tl.store(out + i_s * size + o_c, b_sum, mask=m_c)
