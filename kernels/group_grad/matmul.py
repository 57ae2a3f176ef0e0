"""Every row times its segment's matrix."""

import triton
import triton.language as tl

from fastdd.kernels.group_grad.segments import segment_of


@triton.jit
def matmul_tiles(
    x,
    g,
    weights,
    offsets,
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
    i_s, place, _ = segment_of(offsets, item, n_segments, positions, ROWS, SEARCH)
    if i_s >= n_segments:
        return
    end = tl.load(offsets + i_s + 1) * positions
    o_r = tl.load(offsets + i_s) * positions + place * ROWS + tl.arange(0, ROWS)
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
