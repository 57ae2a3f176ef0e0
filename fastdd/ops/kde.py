"""Exact Gaussian log-density, streamed: no matrix of all pairs."""

import math

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.reference import kde as reference
from fastdd.reference.contents import check_offsets, readable

PRECISIONS = ("fp32", "ieee", "tf32")
# Bandwidths whose squares, and their inverses, are numbers of float32; others are computed in float64.
_LEAST_SINGLE, _LARGEST_SINGLE = 1e-15, 1e15
# Below this an exponent, in units of log 2, is no number of float64.
_LEAST = math.sqrt(0.5 / math.log(2) / torch.finfo(torch.float64).max)
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _launch(*arguments) -> Tensor:
    from fastdd.kernels import kde as kernels

    return kernels.kde(*arguments)


_KDE = _dispatch.define(
    "kde(Tensor x, Tensor? queries, Tensor? weights, Tensor? offsets, float bandwidth, bool leave_one_out, "
    "str precision) -> Tensor",
    reference.kde,
    {"cpu": "native", "cuda": "triton"},
)
_dispatch.register_triton(_KDE, _launch)
_dispatch.register_fake(_KDE, lambda x, queries, *_: x.new_empty((x if queries is None else queries).shape[0]))
_dispatch.register_no_autograd(_KDE)


def check_rows(name: str, rows: Tensor) -> Tensor:
    """[N, D], in float32 or float64; finite, and not part of a graph."""
    if rows.dtype not in _FLOATS:
        raise TypeError(f"{name} must be float32, float64, bfloat16 or float16, not {rows.dtype}")
    if rows.dim() != 2:
        raise ValueError(f"{name} must be [N, D], not {list(rows.shape)}: flatten the rest with {name}.flatten(1)")
    if rows.requires_grad:
        raise ValueError(f"a density is not differentiable here: pass {name}.detach()")
    rows = rows if rows.dtype == torch.float64 else rows.float()
    # A sum takes no memory; it may overflow where no value is infinite.
    if readable(rows) and not math.isfinite(rows.sum(dtype=torch.float64)):
        wrong = (~rows.isfinite().all(1)).sum().item()
        if wrong:
            raise ValueError(f"{name} has values that are not finite, in {wrong} of its rows")
    return rows


def check_bandwidth(bandwidth: float) -> float:
    """A positive float whose exponents, in units of log 2, are finite in float64."""
    try:
        bandwidth = float(bandwidth)
    except OverflowError:
        bandwidth = math.inf
    if not (0 < bandwidth < math.inf):
        raise ValueError(f"bandwidth must be finite and above 0, not {bandwidth}")
    if bandwidth < _LEAST:
        raise ValueError(f"bandwidth must be at least {_LEAST:.2g}, not {bandwidth:g}: scale x and the bandwidth up")
    return bandwidth


def check_queries(x: Tensor, queries: Tensor | None, offsets: Tensor | None, leave_one_out: bool) -> Tensor | None:
    """Checked as rows, and against x; offsets and leave_one_out too, which are for queries=None."""
    if offsets is not None:
        check_offsets(offsets, len(x))
        if offsets.device != x.device:
            raise ValueError(f"offsets are on {offsets.device} and x on {x.device}: move one of them")
    if queries is None:
        return None
    if leave_one_out:
        raise ValueError("leave_one_out leaves out rows of x: it goes with queries=None")
    if offsets is not None:
        raise ValueError("offsets are segments of x, each its own data and queries: they go with queries=None")
    queries = check_rows("queries", queries)
    if queries.shape[1] != x.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} columns and x has {x.shape[1]}")
    if queries.dtype != x.dtype or queries.device != x.device:
        raise ValueError(
            f"queries are {queries.dtype} on {queries.device} and x is {x.dtype} on {x.device}: convert one of them"
        )
    return queries


def _check_weights(x: Tensor, weights: Tensor | None) -> None:
    if weights is None:
        return
    if not weights.is_floating_point() or weights.shape != (len(x),):
        raise ValueError(f"weights must be floating point [{len(x)}], not {weights.dtype} {list(weights.shape)}")
    if weights.device != x.device:
        raise ValueError(f"weights are on {weights.device} and x on {x.device}: move one of them")
    if weights.requires_grad:
        raise ValueError("weights are not differentiable here: pass weights.detach()")
    if readable(weights) and not ((weights >= 0) & (weights < math.inf)).all():
        raise ValueError(f"weights must be finite and at least 0; the smallest is {weights.min()}")


@_dispatch.public
def kde(
    x: Tensor,
    queries: Tensor | None = None,
    *,
    bandwidth: float,
    weights: Tensor | None = None,
    offsets: Tensor | None = None,
    leave_one_out: bool = False,
    precision: str = "fp32",
    backend: str = "auto",
) -> Tensor:
    """Exact Gaussian log-density of each query: ``log p(q) = log sum_j w_j N(q; x_j, h^2 I) - log sum_j w_j``.

    Normalised, so that p integrates to one: N is ``exp(-|q - x_j|^2 / (2 h^2)) / (h sqrt(2 pi))^D``. The density of
    "Mitigating Bias in Dataset Distillation" is this one up to a constant factor (it takes the normalisation of one
    dimension); its kernel variance, sigma^2 = 0.1, is h^2.

    Args:
        x: [N, D], float32 or float64; bfloat16 and float16 are taken as float32. Finite, which is checked on the CPU.
        queries: [M, D] like x; None means x itself, which takes half the work on the CPU.
        bandwidth: h, the standard deviation of the kernel in the units of x (not its variance).
        weights: [N] floating point, at least 0, on x's device; None means 1. A row of weight 0 adds nothing.
        offsets: int64 [S+1] on x's device, rising from 0 to N: a row sees only its own segment,
            ``x[offsets[s]:offsets[s + 1]]``. So a data set sorted by class gives densities per class in one call. Only
            with ``queries=None``. The contents are checked on the CPU only.
        leave_one_out: leave each row itself, by its place and not its value, out of its own density, its weight too.
            Only with ``queries=None``.
        precision: of products of float32 on tensor cores. ``fp32`` is faithful (three products of tf32 parts), ``ieee``
            does without them, and ``tf32`` rounds x to 10 bits of mantissa first. The CPU always does ``ieee``.
        backend: ``auto``, ``native`` (C++, CPU), ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto``
            means.

    Returns:
        [M], x's dtype. ``-inf`` where there is nothing to sum: no rows, all weights 0, or, under leave-one-out, no
        other row with a weight. Not differentiable.

    Raises:
        ValueError: a shape, dtype, device or value that does not fit, or an input that requires a gradient.
        TypeError: rows that are not floating point.
        RuntimeError: a backend asked for by name that can't run here.

    The sum is taken relative to its largest term, so nothing underflows; a term below 2^-126 of the largest is lost.
    Squared distances are |q|^2 + |x|^2 - 2 q.x of centred rows, so the error of the result grows as (R / h)^2, R the
    largest distance from the mean: about 1e-7 times that in float32. Two runs are bitwise equal, and do not depend on
    the number of threads. Cost: N M D multiply-adds, half with ``queries=None`` on the CPU; memory: one copy of the
    rows and at most 256 bytes a query.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> kde(x, torch.tensor([[0.0]]), bandwidth=1.0).exp()  # (0.3989 + 0.2420) / 2
    tensor([0.3205])
    >>> kde(x, bandwidth=1.0, leave_one_out=True).exp()
    tensor([0.2420, 0.2420])
    """
    x = check_rows("x", x)
    queries = check_queries(x, queries, offsets, leave_one_out)
    _check_weights(x, weights)
    bandwidth = check_bandwidth(bandwidth)
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is not one of {', '.join(PRECISIONS)}")
    if x.dtype == torch.float32 and not _LEAST_SINGLE <= bandwidth <= _LARGEST_SINGLE:
        x, queries = x.double(), None if queries is None else queries.double()
        settings = {"bandwidth": bandwidth, "leave_one_out": leave_one_out, "precision": precision, "backend": backend}
        return kde(x, queries, weights=weights, offsets=offsets, **settings).float()
    chosen = _dispatch.choose("kde", backend, x.device)
    run = {"reference": reference.kde, "interpret": _launch}.get(chosen, torch.ops.fastdd.kde)
    return run(x, queries, weights, offsets, bandwidth, leave_one_out, precision)
