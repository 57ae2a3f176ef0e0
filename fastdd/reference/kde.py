"""Exact Gaussian log-density in plain PyTorch, tile by tile: ground truth, fallback and baseline."""

import itertools
import math

import torch
from torch import Tensor

from fastdd.reference.contents import ends_of

_DIFFERENCES = "donot_use_mm_for_euclid_dist"
_QUERIES = 128
_ROWS = 8192
# Of squared distances in units of the squared bandwidth, by products: differences are taken where rounding is more.
_ROUNDING = 1e-5


def exponent_scale(h: float) -> float:
    """``1 / (2 h^2)``; zero where the square is beyond a float."""
    return 0.5 / h**2 if h < 1e154 else 0.0


def _log_total(weights: Tensor, leave_one_out: bool) -> Tensor:
    """Log of the total weight; under leave-one-out, of all but each row's own."""
    total = weights.sum()
    if not leave_one_out:
        return total.log()
    # Where a row has most of the weight, the rest is summed without it: nothing cancels.
    heavy = weights > total / 2
    return torch.where(heavy, weights.where(~heavy, 0.0).sum(), total - weights).log()


def _segment(q: Tensor, x: Tensor, weights: Tensor | None, h: float, leave_one_out: bool) -> Tensor:
    n, d = x.shape
    out = torch.full((len(q),), -math.inf, dtype=q.dtype, device=q.device)
    if n == 0 or len(q) == 0 or (leave_one_out and n == 1):
        return out
    w = torch.ones(n, dtype=torch.float64, device=x.device) if weights is None else weights.double()
    centre = x.mean(0, dtype=torch.float64).to(x.dtype)
    q, x, log_w = q - centre, x - centre, w.log().to(x.dtype)
    q_norms, x_norms = q.square().sum(1), x.square().sum(1)
    exactly = torch.finfo(x.dtype).eps * max(q_norms.max(), x_norms.max()).item() / _ROUNDING
    # A square of a bandwidth outside of this range is none of float32.
    by_differences = not (exactly <= h * h and 1e-15 <= h <= 1e15)
    if by_differences:  # in units of the bandwidth and in float64, in which no square is out of range
        q, x = q.double() / h, x.double() / h
    for i in range(0, len(q), _QUERIES):
        rows = slice(i, min(i + _QUERIES, len(q)))
        for j in range(0, n, _ROWS):
            columns = slice(j, min(j + _ROWS, n))
            if by_differences:
                logs = torch.cdist(q[rows], x[columns], compute_mode=_DIFFERENCES).square_().mul_(-0.5)
                logs = logs.add_(log_w[columns])
            else:
                squared = torch.addmm(x_norms[None, columns], q[rows], x[columns].t(), alpha=-2)
                logs = squared.add_(q_norms[rows, None]).clamp_(min=0).mul_(-exponent_scale(h)).add_(log_w[columns])
            if leave_one_out:
                own = torch.arange(rows.start, rows.stop, device=q.device)
                own = own[(own >= columns.start) & (own < columns.stop)]
                logs[own - rows.start, own - columns.start] = -math.inf
            out[rows] = torch.logaddexp(out[rows], torch.logsumexp(logs, 1).to(out.dtype))
    normaliser = _log_total(w, leave_one_out) + d * (math.log(h) + math.log(2 * math.pi) / 2)
    return torch.where(out == -math.inf, out, (out.double() - normaliser).to(out.dtype))


def kde(
    x: Tensor,
    queries: Tensor | None,
    weights: Tensor | None,
    offsets: Tensor | None,
    bandwidth: float,
    leave_one_out: bool,
    precision: str,
) -> Tensor:
    """``log sum_j w_j N(q; x_j, h^2 I) - log sum_j w_j``, [M]. See fastdd.ops.kde; ``precision`` changes nothing here.

    >>> kde(torch.zeros(2, 1), None, None, None, 1.0, False, "fp32")
    tensor([-0.9189, -0.9189])
    """
    if queries is not None:
        return _segment(queries, x, weights, bandwidth, leave_one_out)
    ends = [0, len(x)] if offsets is None else ends_of(offsets, len(x))
    parts = [
        _segment(x[a:b], x[a:b], None if weights is None else weights[a:b], bandwidth, leave_one_out)
        for a, b in itertools.pairwise(ends)
    ]
    return torch.cat([x.new_empty(0), *parts])
