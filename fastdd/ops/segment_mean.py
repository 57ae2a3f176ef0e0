"""Weighted means of rows per segment: every class and every protected group in one launch."""

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.reference import segment_mean as reference
from fastdd.reference.contents import check_offsets

_KERNELS = {"cpu": "native", "cuda": "triton"}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _triton(name: str, *arguments):
    from fastdd.kernels import segment_mean as kernels

    return getattr(kernels, name)(*arguments)


def _launch_mean(x: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    return _triton("segment_mean", x, offsets, weights)


def _launch_spread(g: Tensor, offsets: Tensor, weights: Tensor | None, n: int) -> Tensor:
    return _triton("segment_spread", g, offsets, weights, n)


_MEAN = _dispatch.define(
    "segment_mean(Tensor x, Tensor offsets, Tensor? weights) -> Tensor", reference.segment_mean, _KERNELS
)
_SPREAD = _dispatch.define(
    "segment_spread(Tensor g, Tensor offsets, Tensor? weights, SymInt n) -> Tensor", reference.segment_spread, _KERNELS
)
_dispatch.register_triton(_MEAN, _launch_mean)
_dispatch.register_triton(_SPREAD, _launch_spread)


def _mean_fake(x, offsets, weights):
    return x.new_empty((offsets.shape[0] - 1, x.shape[1]), dtype=reference.accumulation_dtype(x.dtype))


def _spread_fake(g, offsets, weights, n):
    return g.new_empty((n, g.shape[1]))


def _mean_setup(ctx, inputs, output):
    x, offsets, weights = inputs
    ctx.save_for_backward(offsets, weights)
    ctx.n, ctx.dtype = x.shape[0], x.dtype


def _mean_backward(ctx, g):
    return torch.ops.fastdd.segment_spread(g, *ctx.saved_tensors, ctx.n).to(ctx.dtype), None, None


def _spread_setup(ctx, inputs, output):
    _, offsets, weights, _ = inputs
    ctx.save_for_backward(offsets, weights)


def _spread_backward(ctx, g):
    return torch.ops.fastdd.segment_mean(g, *ctx.saved_tensors), None, None, None


_dispatch.register_fake(_MEAN, _mean_fake)
_dispatch.register_fake(_SPREAD, _spread_fake)
_dispatch.register_autograd(_MEAN, _mean_backward, _mean_setup, constant=["weights"])
_dispatch.register_autograd(_SPREAD, _spread_backward, _spread_setup, constant=["weights"])


def check_segments(offsets: Tensor, weights: Tensor | None, n: int, device: torch.device) -> None:
    """Raises ValueError for offsets or weights that do not fit n rows on ``device``; contents are read on CPUs only."""
    check_offsets(offsets, n)
    if offsets.device != device:
        raise ValueError(f"offsets are on {offsets.device} and the rows on {device}: move one of them")
    if weights is not None:
        if not weights.is_floating_point() or weights.shape != (n,):
            raise ValueError(f"weights must be floating point [{n}], not {weights.dtype} {list(weights.shape)}")
        if weights.device != device:
            raise ValueError(f"weights are on {weights.device} and the rows on {device}: move one of them")


def check_constant_weights(offsets: Tensor, weights: Tensor | None, n: int, device: torch.device) -> None:
    """:func:`check_segments`; also ValueError for weights that require a gradient, which there is none for."""
    check_segments(offsets, weights, n, device)
    if weights is not None and weights.requires_grad:
        raise ValueError("weights are not differentiable here: pass weights.detach()")


@_dispatch.public
def segment_mean(x: Tensor, offsets: Tensor, weights: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """Weighted mean of the rows of every segment: ``out[s] = sum w_i x_i / sum w_i``, i in segment s.

    Segments are consecutive rows in CSR form: segment s is ``x[offsets[s]:offsets[s + 1]]``. An empty segment, or one
    whose weights sum to zero, gives zeros. These are the targets of distribution matching (Zhao and Bilen, WACV 2023)
    when a segment is a class, and FairDD's when it is a protected group of a class.

    Args:
        x: [N, D], float32, float64, bfloat16 or float16; differentiable to any order.
        offsets: int64 [S+1] on x's device, rising from 0 to N. The contents are checked on the CPU only.
        weights: [N] floating point, at least 0, on x's device; None means 1. Not differentiable.
        backend: ``auto``, ``native`` (C++, CPU), ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto``
            means.

    Returns:
        [S, D], float64 for float64 and float32 for everything narrower, which is summed in float32 too.

    Raises:
        ValueError: a shape, dtype, device or offset that does not fit.
        TypeError: an x that is not floating point.
        RuntimeError: a backend asked for by name that can't run here.

    Two runs are bitwise equal, and do not depend on the number of threads. Cost: x is read once.

    >>> x = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]])
    >>> segment_mean(x, torch.tensor([0, 2, 2, 3]))
    tensor([[2., 1.],
            [0., 0.],
            [5., 5.]])
    """
    if x.dtype not in _FLOATS:
        raise TypeError(f"x must be float32, float64, bfloat16 or float16, not {x.dtype}")
    if x.dim() != 2:
        raise ValueError(f"x must be [N, D], not {list(x.shape)}: flatten the rest with x.flatten(1)")
    n = x.shape[0]
    check_constant_weights(offsets, weights, n, x.device)
    chosen = _dispatch.choose("segment_mean", backend, x.device)
    if chosen == "reference":
        return reference.segment_mean(x, offsets, weights)
    if chosen == "interpret":
        return _dispatch.LinearPair.apply(
            x, lambda t: _launch_mean(t, offsets, weights), lambda g: _launch_spread(g, offsets, weights, n).to(x.dtype)
        )
    return torch.ops.fastdd.segment_mean(x, offsets, weights)


@_dispatch.public
def segment_spread(g: Tensor, offsets: Tensor, weights: Tensor | None, n: int, *, backend: str = "auto") -> Tensor:
    """The adjoint of :func:`segment_mean`: row i of the result is ``w_i / sum w`` times row s of g, s the segment of i.

    Args:
        g: [S, D], float32 or float64; differentiable to any order.
        offsets: int64 [S+1] on g's device, rising from 0 to n.
        weights: [n] floating point, or None for 1. Not differentiable.
        n: the number of rows of the result.
        backend: as for :func:`segment_mean`.

    Returns:
        [n, D], of g's dtype. Rows of a segment of zero total weight are zero.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`segment_mean`.

    >>> segment_spread(torch.tensor([[6.0]]), torch.tensor([0, 3]), torch.tensor([1.0, 1.0, 2.0]), 3)
    tensor([[1.5000],
            [1.5000],
            [3.0000]])
    """
    if g.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"g must be float32 or float64, not {g.dtype}")
    check_constant_weights(offsets, weights, n, g.device)
    if g.dim() != 2 or g.shape[0] != offsets.shape[0] - 1:
        raise ValueError(f"g must be [S, D] with S = {offsets.shape[0] - 1} segments, not {list(g.shape)}")
    chosen = _dispatch.choose("segment_spread", backend, g.device)
    if chosen == "reference":
        return reference.segment_spread(g, offsets, weights, n)
    if chosen == "interpret":
        return _dispatch.LinearPair.apply(
            g, lambda t: _launch_spread(t, offsets, weights, n), lambda t: _launch_mean(t, offsets, weights)
        )
    return torch.ops.fastdd.segment_spread(g, offsets, weights, n)
