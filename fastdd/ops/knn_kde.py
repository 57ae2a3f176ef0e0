"""Gaussian log-density from nearest neighbours and a sample of the rest, with certain bounds."""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.core import rng
from fastdd.ops import _dispatch, _faiss
from fastdd.ops.kde import check_bandwidth, check_queries, check_rows
from fastdd.reference.contents import ends_of
from fastdd.reference.kde import exponent_scale

_dispatch.define_plain("knn_kde", "faiss")

# Queries at a time: what is held is this times the neighbours and the sample.
_QUERIES = 2048
# Half the distance between 1 and the next float32.
_UNIT = 2.0**-24


@dataclass(frozen=True)
class KnnDensity:
    """A log-density and what is certain about it.

    Attributes:
        log_density: [M], the estimate; within the bounds.
        lower: [M]; the near field alone.
        upper: [M]; as if everything else were as near as the last neighbour.
        gap: the largest ``upper - lower`` of all queries, in nats: how wrong the estimate can be at worst.
    """

    log_density: Tensor
    lower: Tensor
    upper: Tensor
    gap: float


def _without_self(squared: Tensor, ids: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """k of the k + 1 neighbours of rows ``first, first + 1, ...``: not the row itself, wherever it is among them.

    Nearest it need not be: duplicates are as near. It may even be missing, for the same reason; then the last goes.
    """
    k = ids.shape[1] - 1
    own = ids == torch.arange(first, first + len(ids), device=ids.device)[:, None]
    place = torch.where(own.any(1), own.int().argmax(1), k)
    keep = torch.arange(k, device=ids.device)
    keep = keep + (keep >= place[:, None]).long()
    return squared.gather(1, keep), ids.gather(1, keep)


def _segment(
    q: Tensor, x: Tensor, h: float, k: int, far_samples: int, leave_one_out: bool, key: int, first: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate, lower and upper bound, float64 [M]; under leave-one-out the queries are x's rows from ``first`` on."""
    n, d = x.shape
    others = n - leave_one_out
    if others <= 0 or len(q) == 0:
        return (torch.full((len(q),), -math.inf, dtype=torch.float64, device=q.device),) * 3
    k = min(k, others)
    centre = x.mean(0, dtype=torch.float64).to(x.dtype)
    q, x = (q - centre).float(), (x - centre).float()
    q_norms, x_norms = q.square().sum(1), x.square().sum(1)
    scale = exponent_scale(h)
    # With so many more, far_samples are left whichever of them are near.
    sample = rng.permutation(key, n, device=x.device)[: far_samples + k + leave_one_out]
    place = torch.full((n,), -1, device=x.device)
    place[sample] = torch.arange(len(sample), device=x.device)
    far_x, far_norms = x[sample], x_norms[sample]
    # FAISS and the product below take squared distances as |q|^2 + |x|^2 - 2 q.x in float32, sums of d terms: off by
    # at most (d + 3) u (|q| + |x|)^2 to first order in u = 2^-24; rounding the centred rows adds 2 u (|q| + |x|)^2.
    slack = scale * (d + 8) * _UNIT * (q_norms.double().sqrt() + x_norms.double().max().sqrt()).square()
    parts = []
    for i in range(0, len(q), _QUERIES):
        rows = slice(i, i + _QUERIES)
        squared, ids = _faiss.search(q[rows], x, k + leave_one_out)
        if leave_one_out:
            squared, ids = _without_self(squared, ids, first + i)
        near_logs = squared.double().clamp(min=0) * -scale
        near = estimate = upper = near_logs.logsumexp(1)
        if others > k:
            squared = torch.addmm(far_norms[None], q[rows], far_x.t(), alpha=-2) + q_norms[rows, None]
            logs = squared.clamp_(min=0).mul_(-scale)
            in_sample = place[ids]
            if leave_one_out:
                in_sample = torch.cat([in_sample, place[first + i : first + i + len(ids), None]], 1)
            # Neighbours outside the sample go to a column that is left out: which they are, only the device knows.
            out = torch.where(in_sample < 0, len(sample), in_sample)
            logs = F.pad(logs, (0, 1)).scatter_(1, out, -math.inf)[:, :-1]
            count = len(sample) - (in_sample >= 0).sum(1)
            far = logs.logsumexp(1).double() + ((others - k) / count.double()).log()
            upper = torch.logaddexp(near, near_logs[:, -1] + math.log(others - k))
            estimate = torch.logaddexp(near, far).clamp(near, upper)
        parts.append((estimate, near - slack[rows], upper + slack[rows]))
    normaliser = math.log(others) + d * (math.log(h) + math.log(2 * math.pi) / 2)
    return tuple(torch.cat(column) - normaliser for column in zip(*parts, strict=True))


@_dispatch.public
def knn_kde(
    x: Tensor,
    queries: Tensor | None = None,
    *,
    bandwidth: float,
    k: int = 256,
    far_samples: int = 1024,
    offsets: Tensor | None = None,
    leave_one_out: bool = False,
    seed: int = 0,
    rows: tuple[int, int] | None = None,
) -> KnnDensity:
    """Gaussian log-density as :func:`fastdd.ops.kde.kde`, from the k nearest neighbours and a sample of the rest.

    The terms of the k neighbours are summed, p_k; the far field is estimated from m of the other N - k rows, drawn
    without replacement: ``p = p_k + (N - k) / m`` times the sum of their terms K / N (as in DEANN: Karppa, Aumueller
    and Pagh, AISTATS 2022). So p, not its logarithm, is unbiased, but for the clamp into what is certain:
    ``p_k <= p <= p_k + (N - k) K(d_k) / N``, d_k the distance of the last neighbour. Its relative standard error is at
    most ``sqrt((N - k) / (m k)) / 2``, whatever the data. Neighbours alone are no density: their sum saturates at k,
    so dense and sparse regions come out alike.

    The search is FAISS's exact one, over all rows. It does the same multiply-adds as the exact density and then
    selects, so it takes longer: this is to measure what neighbours determine, and against other neighbour-based work.

    Args:
        x: [N, D], float32 or float64 (searched in float32); bfloat16 and float16 are taken as float32. Finite, which is
            checked on the CPU.
        queries: [M, D] like x; None means x itself.
        bandwidth: h, the standard deviation of the kernel in the units of x.
        k: neighbours, at least 1; more than there are means all. On a GPU at most 2,047.
        far_samples: how many far rows at least a query sees, at least 1; drawn once for all queries of a segment.
        offsets: int64 [S+1] on x's device: a row sees only its own segment. Only with ``queries=None``.
        leave_one_out: leave each row itself, by its place and not its value, out of its own density. Only with
            ``queries=None``.
        seed: of the far field's sample; the global RNG is not used.
        rows: (first, last): the densities of rows first..last-1 of x alone, M of them. Only with ``queries=None``.

    Returns:
        A :class:`KnnDensity`, its tensors of x's dtype. The bounds hold for the true density of x: they are widened by
        the rounding of float32 distances, ``(D + 8) 2^-24 (|q| + R)^2 / (2 h^2)`` nats, lengths from the mean, R the
        largest in x. All ``-inf`` where there is no row.

    Raises:
        ValueError: a shape, dtype, device or value that does not fit, or an input that requires a gradient.
        TypeError: rows that are not floating point.
        RuntimeError: FAISS is missing, or has no code for this GPU.

    Two runs are equal on the CPU. Cost: N M D multiply-adds and the selection; memory: 2,048 queries times
    ``k + far_samples`` beside a copy of the rows.
    """
    data = check_rows("x", x)
    queries = check_queries(data, queries, offsets, leave_one_out)
    first, last = (0, len(data)) if rows is None else rows
    if rows is not None and (queries is not None or not 0 <= first <= last <= len(data)):
        raise ValueError(f"rows must be 0 <= first <= last <= {len(data)}, with queries=None; they are {rows}")
    bandwidth = check_bandwidth(bandwidth)
    for name, value in (("k", k), ("far_samples", far_samples)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if any(map(_dispatch.has_tangent, (x, queries))):
        raise RuntimeError("knn_kde has no forward-mode derivative: use kde with backend='reference'")
    why = _faiss.missing(data.device.type)
    if why:
        raise RuntimeError(f"knn_kde: {why}")
    ends = [0, len(data)] if offsets is None else ends_of(offsets, len(data))
    results = [(data.new_empty(0, dtype=torch.float64),) * 3]
    for s, (start, end) in enumerate(itertools.pairwise(ends)):
        segment, begin, stop = data[start:end], max(first, start) - start, min(last, end) - start
        if queries is None and begin >= stop:
            continue
        asked = segment[begin:stop] if queries is None else queries
        key = rng.key(seed, "knn_kde", s)
        results.append(_segment(asked, segment, bandwidth, k, far_samples, leave_one_out, key, begin))
    log_density, lower, upper = (torch.cat(column) for column in zip(*results, strict=True))
    width = (upper - lower).nan_to_num(0.0)
    if data.dtype == torch.float32:
        # Outwards: rounding to nearest could cross the truth.
        lower, upper = lower.float(), upper.float()
        lower = lower.nextafter(torch.full_like(lower, -math.inf))
        upper = torch.where(upper == -math.inf, upper, upper.nextafter(torch.full_like(upper, math.inf)))
    log_density = log_density.to(data.dtype).clamp(lower, upper)
    return KnnDensity(log_density, lower, upper, width.max().item() if len(width) else 0.0)
