"""Every image convolved by its segment's filters, or the adjoint of that."""

import triton
import triton.language as tl

from fastdd.kernels.group_grad.segments import segment_of


@triton.jit
def convolve_tiles(
    x,
    g,
    offsets,
    out,
    n_segments,
    positions,
    height,
    width,
    out_width,
    stride_y,
    stride_x,
    pad_y,
    pad_x,
    step_y,
    step_x,
    taps,
    kernel_width,
    groups,
    inner,
    columns,
    g_segment,
    g_group,
    g_inner,
    g_column,
    g_tap,
    ADJOINT: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
    SEARCH: tl.constexpr,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    blocks = tl.cdiv(columns, COLUMNS)
    i_m = tl.program_id(0) % blocks
    i_g = (tl.program_id(0) // blocks) % groups
    item = tl.program_id(0) // (blocks * groups)
    i_s, place, _ = segment_of(offsets, item, n_segments, positions, ROWS, SEARCH)
    if i_s >= n_segments:
        return
    end = tl.load(offsets + i_s + 1) * positions
    o_r = tl.load(offsets + i_s) * positions + place * ROWS + tl.arange(0, ROWS)
    m_r = o_r < end
    sample = o_r // positions
    position = (o_r % positions).to(tl.int32)
    o_m = i_m * COLUMNS + tl.arange(0, COLUMNS)
    m_m = o_m < columns
    g += i_s.to(tl.int64) * g_segment + i_g * g_group
    b_sum = tl.zeros((ROWS, COLUMNS), dtype=ACC)
    for tap in range(taps):
        shift_y = (tap // kernel_width) * step_y
        shift_x = (tap % kernel_width) * step_x
        if ADJOINT:
            y = position // out_width + pad_y - shift_y
            z = position % out_width + pad_x - shift_x
            m_x = m_r & (y >= 0) & (z >= 0) & (y % stride_y == 0) & (z % stride_x == 0)
            y = y // stride_y
            z = z // stride_x
        else:
            y = (position // out_width) * stride_y - pad_y + shift_y
            z = (position % out_width) * stride_x - pad_x + shift_x
            m_x = m_r & (y >= 0) & (z >= 0)
        m_x = m_x & (y < height) & (z < width)
        row = ((sample * height + y) * width + z) * (groups * inner) + i_g * inner
        for i in range(0, inner, INNER):
            o_k = i + tl.arange(0, INNER)
            m_k = o_k < inner
            b_x = tl.load(x + row[:, None] + o_k[None, :], mask=m_x[:, None] & m_k[None, :], other=0.0).to(ACC)
            # 32 bits: a segment's filters are one layer's.
            o_g = o_k[:, None] * g_inner + o_m[None, :] * g_column + tap * g_tap
            b_g = tl.load(g + o_g, mask=m_k[:, None] & m_m[None, :], other=0.0)
            b_sum = tl.dot(b_x, b_g, b_sum, input_precision=PRECISION, out_dtype=ACC)
    o_out = o_r[:, None] * (groups * columns) + (i_g * columns + o_m)[None, :]
    tl.store(out + o_out, b_sum, mask=m_r[:, None] & m_m[None, :])
