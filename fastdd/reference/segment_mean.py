"""Weighted means of rows per segment, in plain PyTorch: ground truth, fallback and baseline."""

import torch
from torch import Tensor

from fastdd.reference import contents


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Sums of float64 are float64; of everything narrower, float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _sums(x: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Sums of x's rows per segment, in x's dtype; in between float64, as index_add adds one row after the other."""
    return x.new_zeros(segments, *x.shape[1:], dtype=torch.float64).index_add(0, segment, x.double()).to(x.dtype)


def _told(sums: Tensor, offsets: Tensor, n: int) -> Tensor:
    """The sums, or NaN where offsets that could not be read do not rise from 0 to n."""
    if contents.readable(offsets):
        return sums
    return torch.where(contents.offsets_rise(offsets, n), sums, torch.nan)


def segment_totals(
    offsets: Tensor, weights: Tensor | None, n: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Segment of every row, int64 [n]; its weight, [n]; and the total weight of every segment, [S].

    Offsets that do not rise from 0 to n are refused where they can be read; elsewhere the totals become NaN.
    """
    contents.check_offsets(offsets, n)
    segments = offsets.shape[0] - 1
    if segments == 0 and n != 0:
        raise ValueError(f"offsets must rise from 0 to the number of rows, {n}; they hold no segment")
    # Not by repeat_interleave, which with its output's size given writes where the lengths say, unread.
    rows = torch.arange(n, device=offsets.device)
    segment = torch.searchsorted(offsets[1:].contiguous(), rows, right=True)
    w = torch.ones(n, dtype=dtype, device=offsets.device) if weights is None else weights.to(dtype)
    if not contents.readable(offsets):
        segment = segment.clamp(max=max(segments - 1, 0))
    return segment, w, _told(_sums(w, segment, segments), offsets, n)


def segment_shares(
    offsets: Tensor, weights: Tensor | None, n: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Segment of every row, int64 [n]; its share of the segment's weight, [n], zero where that weight is zero; and
    whether that weight is not zero, bool [n].
    """
    segment, w, totals = segment_totals(offsets, weights, n, dtype)
    totals = totals[segment]
    present = totals != 0
    return segment, torch.where(present, w / torch.where(present, totals, 1), 0), present


def segment_mean(x: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """``out[s] = sum w_i x_i / sum w_i`` over the rows of segment s; [N, D] -> [S, D]. See fastdd.ops.segment_mean.

    >>> segment_mean(torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([0, 2, 2, 3]))
    tensor([[2.], [0.], [7.]])
    """
    dtype = accumulation_dtype(x.dtype)
    segment, share, present = segment_shares(offsets, weights, x.shape[0], dtype)
    # Not by a share of 0 alone, which leaves what is not finite NaN.
    rows = torch.where(present[:, None], x.to(dtype), 0) * share[:, None]
    return _told(_sums(rows, segment, offsets.shape[0] - 1), offsets, x.shape[0])


def segment_spread(g: Tensor, offsets: Tensor, weights: Tensor | None, n: int) -> Tensor:
    """The adjoint: row i gets ``w_i / sum w`` times row s of g, s its segment; [S, D] -> [n, D]."""
    segment, share, present = segment_shares(offsets, weights, n, accumulation_dtype(g.dtype))
    return torch.where(present[:, None], g[segment], 0) * share[:, None]
