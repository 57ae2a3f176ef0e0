"""Triton kernel of loss_slopes and of its derivative. Never run on a GPU yet.

A program has one sample. It finds the sample's segment and the segment's total weight by itself: a batch has some
thousand samples, and a launch for the totals costs more than reading the weights again.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.segment_mean import accumulator, on


@triton.jit
def segment_total(offsets, weights, i_n, n_segments, ACC: tl.constexpr, WEIGHTED: tl.constexpr, COLUMNS: tl.constexpr):
    """Sum of the weights of a sample's segment."""
    start = i_n * 0
    end = i_n * 0
    for i in range(0, n_segments, COLUMNS):
        o_s = i + tl.arange(0, COLUMNS)
        m_s = o_s < n_segments
        b_start = tl.load(offsets + o_s, mask=m_s, other=0)
        b_end = tl.load(offsets + o_s + 1, mask=m_s, other=0)
        mine = m_s & (b_start <= i_n) & (i_n < b_end)
        start += tl.sum(tl.where(mine, b_start, 0), axis=0)
        end += tl.sum(tl.where(mine, b_end, 0), axis=0)
    if WEIGHTED:
        b_sum = tl.zeros((COLUMNS,), dtype=ACC)
        for i in range(start, end, COLUMNS):
            o_w = i + tl.arange(0, COLUMNS)
            b_sum += tl.load(weights + o_w, mask=o_w < end, other=0.0).to(ACC)
        return tl.sum(b_sum, axis=0)
    else:
        return (end - start).to(ACC)


@triton.jit
def loss_slopes_rows(
    h,
    logits,
    labels,
    offsets,
    weights,
    out,
    n_segments,
    n_columns,
    ACC: tl.constexpr,
    PULL: tl.constexpr,
    WEIGHTED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    i_n = tl.program_id(0).to(tl.int64)
    total = segment_total(offsets, weights, i_n, n_segments, ACC, WEIGHTED, COLUMNS)
    if WEIGHTED:  # noqa: SIM108 - compiled away
        weight = tl.load(weights + i_n).to(ACC)
    else:
        weight = total * 0 + 1
    share = tl.where(total == 0, 0, weight / tl.where(total == 0, 1, total))
    logits += i_n * n_columns
    h += i_n * n_columns
    out += i_n * n_columns
    o_c = tl.arange(0, COLUMNS)
    b_top = tl.full((COLUMNS,), float("-inf"), dtype=ACC)
    for i in range(0, n_columns, COLUMNS):
        b_z = tl.load(logits + i + o_c, mask=i + o_c < n_columns, other=float("-inf")).to(ACC)
        b_top = tl.maximum(b_top, b_z)
    top = tl.max(b_top, axis=0)
    b_sum = tl.zeros((COLUMNS,), dtype=ACC)
    b_dot = tl.zeros((COLUMNS,), dtype=ACC)
    for i in range(0, n_columns, COLUMNS):
        m_c = i + o_c < n_columns
        b_e = tl.exp(tl.load(logits + i + o_c, mask=m_c, other=float("-inf")).to(ACC) - top)
        b_sum += b_e
        if PULL:
            b_dot += b_e * tl.load(h + i + o_c, mask=m_c, other=0.0).to(ACC)
    sum_e = tl.sum(b_sum, axis=0)
    mean_h = tl.sum(b_dot, axis=0) / sum_e
    if not PULL:
        label = tl.load(labels + i_n)
    for i in range(0, n_columns, COLUMNS):
        m_c = i + o_c < n_columns
        b_p = tl.exp(tl.load(logits + i + o_c, mask=m_c, other=float("-inf")).to(ACC) - top) / sum_e
        if PULL:
            b_out = b_p * (tl.load(h + i + o_c, mask=m_c, other=0.0).to(ACC) - mean_h)
        else:
            b_out = b_p - (i + o_c == label).to(ACC)
        tl.store(out + i + o_c, share * b_out, mask=m_c)


def _rows(h: Tensor | None, logits: Tensor, labels: Tensor | None, offsets: Tensor, weights: Tensor | None) -> Tensor:
    logits, offsets = logits.contiguous(), offsets.contiguous()
    out = torch.empty_like(logits)
    _, acc = accumulator(logits.dtype)
    if out.numel():
        with on(logits.device):
            loss_slopes_rows[(len(logits),)](
                logits if h is None else h.contiguous(),
                logits,
                offsets if labels is None else labels.contiguous(),
                offsets,
                logits if weights is None else weights.contiguous(),
                out,
                len(offsets) - 1,
                logits.shape[1],
                ACC=acc,
                PULL=h is not None,
                WEIGHTED=weights is not None,
                **config("loss_slopes", logits.device),
            )
    return out


def loss_slopes(logits: Tensor, labels: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    """One launch for :func:`fastdd.ops.loss_slopes`."""
    return _rows(None, logits, labels, offsets, weights)


def loss_slopes_pull(h: Tensor, logits: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    """One launch for ``fastdd::loss_slopes_pull``."""
    return _rows(h, logits, None, offsets, weights)
