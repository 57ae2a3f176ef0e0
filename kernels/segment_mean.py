"""Triton kernels of segment_mean and segment_spread. Their tests pass on an H200.

Rows of a segment are summed in float32 (float64 for float64), upcast as they are loaded. A long segment is split over
several programs, by shapes alone: [K, S, D] partial sums, added in order by a second kernel. So there are no atomics,
and no look at the offsets from the host.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config

# Programs that fill a large GPU about four times over. One number for all: results do not depend on the GPU's size.
_PROGRAMS = 528
_ROWS_PER_SPLIT = 256


@triton.jit
def weighted_rows(
    x,
    weights,
    start,
    end,
    o_c,
    n_columns,
    ACC: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum of rows start .. end of x times their weights, [COLUMNS], and sum of the weights."""
    m_c = o_c < n_columns
    b_sum = tl.zeros((ROWS, COLUMNS), dtype=ACC)
    b_total = tl.zeros((ROWS,), dtype=ACC)
    for i in range(start, end, ROWS):
        o_r = i + tl.arange(0, ROWS)
        m_r = o_r < end
        # 64-bit, as the offsets are: rows times columns passes 2^31 for data sets that fit a GPU.
        o_x = o_r[:, None] * n_columns + o_c[None, :]
        b_x = tl.load(x + o_x, mask=m_r[:, None] & m_c[None, :], other=0.0).to(ACC)
        if WEIGHTED:
            b_w = tl.load(weights + o_r, mask=m_r, other=0.0).to(ACC)
            b_sum += b_x * b_w[:, None]
            b_total += b_w
        else:
            b_sum += b_x
            b_total += m_r.to(ACC)
    return tl.sum(b_sum, axis=0), tl.sum(b_total, axis=0)


@triton.jit
def segment_sums(
    x,
    offsets,
    weights,
    out,
    totals,
    n_segments,
    n_columns,
    n_splits,
    ACC: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    blocks = tl.cdiv(n_columns, COLUMNS)
    i_s = (tl.program_id(0) // blocks).to(tl.int64)
    i_c = tl.program_id(0) % blocks
    i_k = tl.program_id(1).to(tl.int64)
    start = tl.load(offsets + i_s)
    end = tl.load(offsets + i_s + 1)
    if SPLIT:
        length = tl.cdiv(end - start, n_splits)
        start = start + i_k * length
        end = tl.minimum(end, start + length)
    o_c = i_c * COLUMNS + tl.arange(0, COLUMNS)
    m_c = o_c < n_columns
    b_out, total = weighted_rows(x, weights, start, end, o_c, n_columns, ACC, WEIGHTED, ROWS, COLUMNS)
    if SPLIT:
        i_row = i_k * n_segments + i_s
        tl.store(out + i_row * n_columns + o_c, b_out, mask=m_c)
        if i_c == 0:
            tl.store(totals + i_row, total)
    else:
        b_out = tl.where(total == 0, 0.0, b_out / tl.where(total == 0, 1.0, total))
        tl.store(out + i_s * n_columns + o_c, b_out, mask=m_c)


@triton.jit
def segment_finish(
    partials,
    totals,
    out,
    n_segments,
    n_columns,
    n_splits,
    ACC: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    blocks = tl.cdiv(n_columns, COLUMNS)
    i_s = (tl.program_id(0) // blocks).to(tl.int64)
    o_c = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    m_c = o_c < n_columns
    b_sum = tl.zeros((COLUMNS,), dtype=ACC)
    # A vector of equal entries: a scalar carried through the loop would not keep ACC.
    b_total = tl.zeros((COLUMNS,), dtype=ACC)
    for i_k in range(0, n_splits):
        i_row = i_k * n_segments + i_s
        b_sum += tl.load(partials + i_row * n_columns + o_c, mask=m_c, other=0.0)
        b_total += tl.load(totals + i_row)
    b_out = tl.where(b_total == 0, 0.0, b_sum / tl.where(b_total == 0, 1.0, b_total))
    tl.store(out + i_s * n_columns + o_c, b_out, mask=m_c)


@triton.jit
def segment_totals(weights, offsets, totals, ACC: tl.constexpr, ROWS: tl.constexpr):
    i_s = tl.program_id(0).to(tl.int64)
    start = tl.load(offsets + i_s)
    end = tl.load(offsets + i_s + 1)
    b_total = tl.zeros((ROWS,), dtype=ACC)
    for i in range(start, end, ROWS):
        o_r = i + tl.arange(0, ROWS)
        b_total += tl.load(weights + o_r, mask=o_r < end, other=0.0).to(ACC)
    tl.store(totals + i_s, tl.sum(b_total, axis=0))


@triton.jit
def segment_spread_rows(
    g,
    offsets,
    weights,
    totals,
    out,
    n_rows,
    n_segments,
    n_columns,
    n_halvings,
    ACC: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    blocks = tl.cdiv(n_columns, COLUMNS)
    o_r = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    o_c = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    m_r = o_r < n_rows
    m_c = o_c < n_columns
    # The segment of a row is the last whose offset is not above it: offsets[low] <= row < offsets[high] throughout.
    low = tl.zeros((ROWS,), dtype=tl.int64)
    high = low + n_segments
    for _ in range(0, n_halvings):
        middle = (low + high) // 2
        before = tl.load(offsets + middle, mask=m_r, other=0) <= o_r
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    if WEIGHTED:
        b_w = tl.load(weights + o_r, mask=m_r, other=0.0).to(ACC)
        b_total = tl.load(totals + low, mask=m_r, other=0.0)
    else:
        b_w = tl.full((ROWS,), 1.0, dtype=ACC)
        b_total = (tl.load(offsets + low + 1, mask=m_r, other=1) - tl.load(offsets + low, mask=m_r, other=0)).to(ACC)
    b_share = tl.where(b_total == 0, 0.0, b_w / tl.where(b_total == 0, 1.0, b_total))
    mask = m_r[:, None] & m_c[None, :]
    b_g = tl.load(g + low[:, None] * n_columns + o_c[None, :], mask=mask, other=0.0)
    tl.store(out + o_r[:, None] * n_columns + o_c[None, :], b_share[:, None] * b_g, mask=mask)


def on(device: torch.device):
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def accumulator(dtype: torch.dtype) -> tuple[torch.dtype, tl.dtype]:
    return (torch.float64, tl.float64) if dtype == torch.float64 else (torch.float32, tl.float32)


def splits(n: int, segments: int, blocks: int) -> int:
    """Programs per segment and column block: enough to fill a GPU, but no more than one for 256 rows of the whole.

    >>> splits(2560, 10, 16), splits(1_000_000, 1, 1), splits(100, 1, 1)
    (4, 528, 1)
    """
    return max(1, min(-(-_PROGRAMS // max(1, segments * blocks)), -(-n // _ROWS_PER_SPLIT)))


def segment_mean(x: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    """Launches for :func:`fastdd.ops.segment_mean.segment_mean`: one, or two when segments are split."""
    x, offsets = x.contiguous(), offsets.contiguous()
    n, columns = x.shape
    segments = offsets.shape[0] - 1
    dtype, acc = accumulator(x.dtype)
    out = x.new_empty((segments, columns), dtype=dtype)
    if segments == 0 or columns == 0:
        return out
    options = config("segment_sums", x.device)
    blocks = -(-columns // options["COLUMNS"])
    k = splits(n, segments, blocks)
    split = k > 1
    sums = out.new_empty((k, segments, columns)) if split else out
    totals = out.new_empty((k, segments)) if split else out
    w = x if weights is None else weights.contiguous()
    with on(x.device):
        segment_sums[segments * blocks, k](
            x, offsets, w, sums, totals, segments, columns, k, acc, weights is not None, split, **options
        )
        if split:
            options = config("segment_finish", x.device)
            blocks = -(-columns // options["COLUMNS"])
            segment_finish[(segments * blocks,)](sums, totals, out, segments, columns, k, acc, **options)
    return out


def segment_spread(g: Tensor, offsets: Tensor, weights: Tensor | None, n: int) -> Tensor:
    """Launches for :func:`fastdd.ops.segment_mean.segment_spread`: one, or two with weights."""
    g, offsets = g.contiguous(), offsets.contiguous()
    segments, columns = g.shape
    _, acc = accumulator(g.dtype)
    out = g.new_empty((n, columns))
    if n == 0 or columns == 0:
        return out
    totals, w = g, g
    with on(g.device):
        if weights is not None:
            w = weights.contiguous()
            totals = g.new_empty(segments)
            segment_totals[(segments,)](w, offsets, totals, acc, **config("segment_totals", g.device))
        options = config("segment_spread", g.device)
        grid = -(-n // options["ROWS"]) * -(-columns // options["COLUMNS"])
        segment_spread_rows[(grid,)](
            g,
            offsets,
            w,
            totals,
            out,
            n,
            segments,
            columns,
            segments.bit_length(),
            acc,
            weights is not None,
            **options,
        )
    return out
