"""Triton kernel of segment_order: a stable counting sort by comparison, in one launch. Never run on a GPU yet.

A sample's place is the number of samples before it: those of lower segments, and the earlier ones of its own. A step
has some thousand samples, so all are compared with all; a sort would be several launches, and the counts some more.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.segment_mean import on


@triton.jit
def segment_places(
    segment, order, offsets, shares, n, n_segments, n_row_blocks, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    i_b = tl.program_id(0)
    if i_b < n_row_blocks:
        o_r = i_b * ROWS + tl.arange(0, ROWS)
        b_row = tl.load(segment + o_r, mask=o_r < n, other=-1)
        before = tl.zeros((ROWS,), dtype=tl.int32)
        alike = tl.zeros((ROWS,), dtype=tl.int32)
        for start in range(0, n, COLUMNS):
            o_c = start + tl.arange(0, COLUMNS)
            b_column = tl.load(segment + o_c, mask=o_c < n, other=n_segments)
            same = b_column[None, :] == b_row[:, None]
            earlier = (b_column[None, :] < b_row[:, None]) | (same & (o_c[None, :] < o_r[:, None]))
            before += tl.sum(earlier.to(tl.int32), axis=1)
            alike += tl.sum(same.to(tl.int32), axis=1)
        tl.store(order + before, o_r.to(tl.int64), mask=o_r < n)
        tl.store(shares + before, 1.0 / tl.maximum(alike, 1).to(tl.float32), mask=o_r < n)
    else:
        o_s = (i_b - n_row_blocks) * ROWS + tl.arange(0, ROWS)
        count = tl.zeros((ROWS,), dtype=tl.int32)
        for start in range(0, n, COLUMNS):
            o_c = start + tl.arange(0, COLUMNS)
            b_column = tl.load(segment + o_c, mask=o_c < n, other=n_segments)
            count += tl.sum((b_column[None, :] < o_s[:, None]).to(tl.int32), axis=1)
        tl.store(offsets + o_s, count.to(tl.int64), mask=o_s <= n_segments)


def segment_order(segment: Tensor, segments: int) -> tuple[Tensor, Tensor, Tensor]:
    """One launch for :func:`fastdd.ops.segment_order`."""
    segment, n = segment.contiguous(), len(segment)
    order, offsets = torch.empty_like(segment), segment.new_empty(segments + 1)
    shares = segment.new_empty(n, dtype=torch.float32)
    options = config("segment_places", segment.device)
    row_blocks = -(-n // options["ROWS"])
    grid = (row_blocks + -(-(segments + 1) // options["ROWS"]),)
    with on(segment.device):
        segment_places[grid](segment, order, offsets, shares, n, segments, row_blocks, **options)
    return order, offsets, shares
