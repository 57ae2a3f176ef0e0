"""Triton kernel of kde. Its tests pass on an H200.

A tile of queries stays while tiles of data stream past: product, squared distance, and the running maximum and sum of
an online log-sum-exp, in base 2. So nothing of size M x N is ever written. Data are split over several programs, by
shapes alone; their [K, M] maxima and sums are combined in order. A tile of queries that spans segments streams all of
them and masks, so that the host never looks at the offsets.
"""

import contextlib
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.segment_mean import segment_mean, segment_totals

# Programs that fill a large GPU about sixteen times over: their times are equal, so the last, partly filled turn costs
# little. One number for all: results do not depend on the GPU's size.
_PROGRAMS = 2112
_ROWS_PER_SPLIT = 1024
# Up to so many columns a tile of queries is loaded once, and products need no loop.
_NARROW = 128
_DOTS = {"fp32": "tf32x3", "ieee": "ieee", "tf32": "tf32"}


@triton.jit
def rows_of_program(b_start, b_end, i_k, n_rows, n_splits, SEGMENTED: tl.constexpr):
    """The rows, from and to, of split i_k of all that a tile of queries needs."""
    low = 0
    high = n_rows
    if SEGMENTED:
        low = tl.min(b_start, axis=0)
        high = tl.max(b_end, axis=0)
    length = tl.cdiv(high - low, n_splits)
    start = low + i_k * length
    return start, tl.minimum(start + length, high)


@triton.jit
def products(
    p_q, p_x, b_q, m_q, m_r, o_q, o_r, o_c, n_columns, ACC: tl.constexpr, DOT: tl.constexpr, NARROW: tl.constexpr
):
    """Of every query of a tile with every row of another, [QUERIES, ROWS]; b_q has the queries where NARROW."""
    if NARROW:
        m_cr = (o_c < n_columns)[:, None] & m_r[None, :]
        b_x = tl.load(p_x + o_r[None, :] * n_columns + o_c[:, None], mask=m_cr, other=0.0)
        b_dot = tl.dot(b_q, b_x, input_precision=DOT, out_dtype=ACC)
    else:
        b_dot = tl.zeros((o_q.shape[0], o_r.shape[0]), dtype=ACC)
        for k in range(0, n_columns, o_c.shape[0]):
            m_c = k + o_c < n_columns
            p_qc = p_q + o_q[:, None] * n_columns + (k + o_c)[None, :]
            p_cr = p_x + o_r[None, :] * n_columns + (k + o_c)[:, None]
            b_part = tl.load(p_qc, mask=m_q[:, None] & m_c[None, :], other=0.0)
            b_x = tl.load(p_cr, mask=m_c[:, None] & m_r[None, :], other=0.0)
            b_dot = tl.dot(b_part, b_x, b_dot, input_precision=DOT, out_dtype=ACC)
    return b_dot


@triton.jit
def counted(b_log, o_r, b_start, b_end, b_own, SEGMENTED: tl.constexpr, LEAVE_ONE_OUT: tl.constexpr):
    """Terms of a tile, -inf for rows outside of a query's segment and for the query itself."""
    if SEGMENTED:
        other = (o_r[None, :] < b_start[:, None]) | (o_r[None, :] >= b_end[:, None])
        b_log = tl.where(other, float("-inf"), b_log)
    if LEAVE_ONE_OUT:
        b_log = tl.where(o_r[None, :] == b_own[:, None], float("-inf"), b_log)
    return b_log


@triton.jit
def with_terms(b_max, b_sum, b_log):
    """The running maximum, and the sum of 2^(term - maximum), with the terms of one more tile."""
    b_new = tl.maximum(b_max, tl.max(b_log, axis=1))
    # Nothing can be taken from -inf.
    b_shift = tl.where(b_new == float("-inf"), 0.0, b_new)
    return b_new, b_sum * tl.exp2(b_max - b_shift) + tl.sum(tl.exp2(b_log - b_shift[:, None]), axis=1)


@triton.jit
def kde_sums(
    q,
    x,
    q_norms,
    x_norms,
    log_weights,
    starts,
    ends,
    maxima,
    sums,
    n_queries,
    n_rows,
    n_columns,
    n_splits,
    scale,
    ACC: tl.constexpr,
    DOT: tl.constexpr,
    SEGMENTED: tl.constexpr,
    LEAVE_ONE_OUT: tl.constexpr,
    NARROW: tl.constexpr,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # From memory: Triton takes a Python number for float32, which float64 densities would show.
    scale = tl.load(scale)
    i_q = tl.program_id(0).to(tl.int64) * QUERIES
    i_k = tl.program_id(1).to(tl.int64)
    o_q = tl.arange(0, QUERIES)
    o_r = tl.arange(0, ROWS)
    o_c = tl.arange(0, COLUMNS)
    m_q = i_q + o_q < n_queries
    b_own = tl.program_id(0) * QUERIES + o_q
    # Stand-ins, unless SEGMENTED; likewise b_q, unless NARROW.
    b_start = o_q
    b_end = o_q
    if SEGMENTED:
        b_start = tl.load(starts + i_q + o_q, mask=m_q, other=n_rows).to(tl.int32)
        b_end = tl.load(ends + i_q + o_q, mask=m_q, other=0).to(tl.int32)
    start, end = rows_of_program(b_start, b_end, i_k, n_rows, n_splits, SEGMENTED)

    # Offsets of a tile are 32-bit, its address is 64-bit: rows times columns passes 2^31 for data that fit a GPU.
    p_q = q + i_q * n_columns
    b_norm = tl.load(q_norms + i_q + o_q, mask=m_q, other=0.0)
    b_q = o_q
    if NARROW:
        # [QUERIES, COLUMNS]
        m_qc = m_q[:, None] & (o_c < n_columns)[None, :]
        b_q = tl.load(p_q + o_q[:, None] * n_columns + o_c[None, :], mask=m_qc, other=0.0)
    b_max = tl.full((QUERIES,), float("-inf"), dtype=ACC)
    b_sum = tl.zeros((QUERIES,), dtype=ACC)
    for i in range(start, end, ROWS):
        p_x = x + i * n_columns
        m_r = i + o_r < end
        b_dot = products(p_q, p_x, b_q, m_q, m_r, o_q, o_r, o_c, n_columns, ACC, DOT, NARROW)
        b_squared = b_norm[:, None] + tl.load(x_norms + i + o_r, mask=m_r, other=0.0)[None, :] - 2 * b_dot
        # Rows past the end have no weight.
        b_log = tl.load(log_weights + i + o_r, mask=m_r, other=float("-inf"))[None, :]
        b_log = b_log - scale * tl.maximum(b_squared, 0.0, propagate_nan=tl.PropagateNan.ALL)
        b_log = counted(b_log, o_r, b_start - i, b_end - i, b_own - i, SEGMENTED, LEAVE_ONE_OUT)
        b_max, b_sum = with_terms(b_max, b_sum, b_log)
    o_out = i_k * n_queries + i_q + o_q
    tl.store(maxima + o_out, b_max, mask=m_q)
    tl.store(sums + o_out, b_sum, mask=m_q)


def _on(device: torch.device):
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def splits(queries: int, rows: int, tile: int) -> int:
    """Programs per tile of queries: enough to fill a GPU, but no more than one for 1,024 rows of data.

    >>> splits(50_000, 50_000, 128), splits(10, 1_000_000, 128), splits(128, 500, 128)
    (6, 977, 1)
    """
    return max(1, min(-(-_PROGRAMS // max(1, -(-queries // tile))), -(-rows // _ROWS_PER_SPLIT)))


def _round_to_tf32(t: Tensor) -> Tensor:
    """To 10 bits of mantissa. Norms must be those of what the tensor cores see, or near pairs cancel to noise."""
    return ((t.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def _aligned(t: Tensor) -> Tensor:
    """With zero columns up to a multiple of 16: one load and one address for 16 bytes; for every number, they spill."""
    missing = -t.shape[1] % 16
    return (torch.nn.functional.pad(t, (0, missing)) if missing else t).contiguous()


def _norms(t: Tensor) -> Tensor:
    return torch.linalg.vector_norm(t, dim=1, dtype=torch.float64).square().to(t.dtype)


def _segment_of_rows(offsets: Tensor, n: int) -> Tensor:
    lengths = offsets.diff()
    return torch.repeat_interleave(torch.arange(len(lengths), device=offsets.device), lengths, output_size=n)


def _totals(weights: Tensor, offsets: Tensor | None) -> Tensor:
    """Total weight of every segment; of all rows when there are none."""
    if offsets is None:
        return weights.sum()[None]
    totals = weights.new_empty(offsets.shape[0] - 1)
    if len(totals):
        segment_totals[(len(totals),)](weights, offsets, totals, tl.float64, **config("segment_totals", weights.device))
    return totals


def _weights_counted(weights: Tensor, offsets: Tensor | None, segment, leave_one_out: bool) -> Tensor:
    """Total weight of what each query's density is taken over; ``segment`` has the number of its segment."""
    total = _totals(weights, offsets)[segment]
    if leave_one_out:
        # Where a row has most of the weight, the rest is summed without it: nothing cancels.
        heavy = weights > total / 2
        total = torch.where(heavy, _totals(weights.where(~heavy, 0.0), offsets)[segment], total - weights)
    return total


def kde(
    x: Tensor,
    queries: Tensor | None,
    weights: Tensor | None,
    offsets: Tensor | None,
    bandwidth: float,
    leave_one_out: bool,
    precision: str,
) -> Tensor:
    """Launches for :func:`fastdd.ops.kde.kde`: one of the kernel, and some of torch before and after it."""
    (n, d), wide = x.shape, x.dtype == torch.float64
    m = n if queries is None else len(queries)
    if m == 0 or n == 0:
        return x.new_full((m,), -math.inf)
    with _on(x.device):
        w = torch.ones(n, dtype=torch.float64, device=x.device) if weights is None else weights.double().contiguous()
        offsets = None if offsets is None else offsets.contiguous()
        segment = 0 if offsets is None else _segment_of_rows(offsets, n)
        starts, ends = (x, x) if offsets is None else (offsets[segment], offsets[segment + 1])
        centre = x.mean(0)[None] if offsets is None else segment_mean(x, offsets, None)
        rows = _aligned(x - centre[segment])
        asked = rows if queries is None else _aligned(queries - centre)
        if precision == "tf32" and not wide:
            rows, asked = _round_to_tf32(rows), _round_to_tf32(asked)
        dot = "ieee" if wide else _DOTS[precision]
        narrow = d <= _NARROW and dot != "ieee"
        options = config(f"kde_{'fp64' if wide else dot}{'_narrow' if narrow else ''}", x.device)
        if narrow:
            options["COLUMNS"] = max(16, triton.next_power_of_2(d))
        k = splits(m, n, options["QUERIES"])
        maxima, sums = x.new_empty((2, k, m)).unbind()
        kde_sums[-(-m // options["QUERIES"]), k](
            asked,
            rows,
            _norms(asked),
            _norms(rows),
            w.log2().to(x.dtype),
            starts,
            ends,
            maxima,
            sums,
            m,
            n,
            rows.shape[1],
            k,
            x.new_full((1,), 0.5 / (math.log(2) * bandwidth**2) if bandwidth < 1e154 else 0.0),
            tl.float64 if wide else tl.float32,
            dot,
            offsets is not None,
            leave_one_out,
            narrow,
            **options,
        )
        top = maxima.amax(0).double()
        log_sum = math.log(2) * (top + (sums * (maxima - top).exp2()).sum(0).log2())
        total = _weights_counted(w, offsets, segment, leave_one_out)
        normaliser = total.log() + d * (math.log(bandwidth) + math.log(2 * math.pi) / 2)
        return torch.where(top == -math.inf, top, log_sum - normaliser).to(x.dtype)
