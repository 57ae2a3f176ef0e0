"""Distribution matching's distances: every class and every protected group in one launch."""

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.ops.segment_mean import check_constant_weights
from fastdd.reference import embedding_match as reference
from fastdd.reference.segment_mean import accumulation_dtype

_KERNELS = {"cpu": "native", "cuda": "triton"}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _triton(name: str, *arguments):
    from fastdd.kernels import embedding_match as kernels

    return getattr(kernels, name)(*arguments)


def _launch_match(real, synthetic, offsets, weights, classes, num_classes):
    return _triton("embedding_match", real, synthetic, offsets, weights, classes, num_classes)


def _launch_pull(scale, x, totals, classes, num_classes, n, factor):
    return _triton("embedding_match_pull", scale, x, totals, classes, num_classes, n, factor)


_MATCH = _dispatch.define(
    "embedding_match(Tensor real, Tensor synthetic, Tensor offsets, Tensor? weights, Tensor classes, "
    "SymInt num_classes) -> (Tensor, Tensor, Tensor)",
    reference.embedding_match,
    _KERNELS,
)
_PULL = _dispatch.define(
    "embedding_match_pull(Tensor? scale, Tensor x, Tensor totals, Tensor classes, SymInt num_classes, SymInt n, "
    "float factor) -> Tensor",
    reference.embedding_match_pull,
    _KERNELS,
)
_dispatch.register_triton(_MATCH, _launch_match)
_dispatch.register_triton(_PULL, _launch_pull)


def _match_fake(real, synthetic, offsets, weights, classes, num_classes):
    segments = classes.shape[0]
    return (
        synthetic.new_empty(segments),
        synthetic.new_empty((segments, synthetic.shape[1])),
        synthetic.new_empty(segments),
    )


def _pull_fake(scale, x, totals, classes, num_classes, n, factor):
    return x.new_empty((n, x.shape[1]))


def _match_setup(ctx, inputs, output):
    real, synthetic, offsets, weights, classes, num_classes = inputs
    _, differences, totals = output
    # The differences, not the rows: both derivatives are linear in them, and the saved output carries its own graph.
    ctx.save_for_backward(differences, totals, offsets, weights, classes)
    ctx.mark_non_differentiable(totals)
    ctx.set_materialize_grads(False)
    ctx.real, ctx.n, ctx.num_classes = (real.shape[0], real.dtype), synthetic.shape[0], num_classes


def _match_backward(ctx, g_distances, g_differences, _):
    differences, totals, offsets, weights, classes = ctx.saved_tensors
    real = synthetic = None
    for g, x, factor in ((g_distances, differences, 2.0), (None, g_differences, 1.0)):
        if (g if x is differences else x) is None:
            continue
        if ctx.needs_input_grad[0]:
            n, dtype = ctx.real
            pulled = factor * x if g is None else factor * g[:, None] * x
            pulled = _dispatch.peer(ctx, "segment_spread")(pulled, offsets, weights, n).to(dtype)
            real = pulled if real is None else real + pulled
        if ctx.needs_input_grad[1]:
            pulled = _dispatch.peer(ctx, "embedding_match_pull")(g, x, totals, classes, ctx.num_classes, ctx.n, -factor)
            synthetic = pulled if synthetic is None else synthetic + pulled
    return real, synthetic, None, None, None, None


def _pull_setup(ctx, inputs, output):
    scale, x, totals, classes, num_classes, n, factor = inputs
    ctx.save_for_backward(scale, x, totals, classes)
    ctx.num_classes, ctx.factor = num_classes, factor / (n // num_classes)


def _pull_backward(ctx, g):
    scale, x, totals, classes = ctx.saved_tensors
    sums = g.unflatten(0, (ctx.num_classes, -1)).sum(1) * ctx.factor
    pushed = torch.where((totals == 0)[:, None], 0, sums[classes])
    if scale is None:
        return None, pushed, None, None, None, None, None
    return (pushed * x).sum(1), scale[:, None] * pushed, None, None, None, None, None


_dispatch.register_fake(_MATCH, _match_fake)
_dispatch.register_fake(_PULL, _pull_fake)
_dispatch.register_autograd(_MATCH, _match_backward, _match_setup, constant=["weights"])
_dispatch.register_autograd(_PULL, _pull_backward, _pull_setup, constant=["totals"])


@_dispatch.public
def embedding_match(
    real: Tensor,
    synthetic: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    classes: Tensor,
    num_classes: int,
    *,
    backend: str = "auto",
) -> Tensor:
    """Squared distance of every segment's mean real embedding to its class's mean synthetic embedding.

        out[s] = || sum_i w_i real_i / sum_i w_i - mean_j synthetic_j ||^2

    with i over the rows of segment s and j over the IPC rows of class ``classes[s]``. Summed, this is the loss of
    distribution matching (Zhao and Bilen, WACV 2023, eq. 4) when a segment is a class, and FairDD's when it is a
    protected group of a class. A segment that is empty, or whose weights sum to zero, has distance 0 and pulls nothing:
    its gradient is exactly zero.

    Args:
        real: [N, D], float32, float64, bfloat16 or float16, sorted by segment; differentiable to any order.
        synthetic: [C * IPC, D], class-major, float64 when ``real`` is and float32 otherwise; differentiable to any
            order.
        offsets: int64 [S+1], rising from 0 to N: segment s is ``real[offsets[s]:offsets[s + 1]]``.
        weights: [N] floating point, at least 0; None means 1. Not differentiable.
        classes: int64 [S], class of each segment, in any order. On a GPU the contents of offsets and classes are not
            checked.
        num_classes: C.
        backend: ``auto``, ``native`` (C++, CPU), ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto``
            means.

    Returns:
        [S], of synthetic's dtype.

    Raises:
        ValueError: a shape, device, offset or class that does not fit.
        TypeError: a dtype that does not.
        RuntimeError: a backend asked for by name that can't run here.

    Rows narrower than float32 are summed in float32. Two runs are bitwise equal, and do not depend on the number of
    threads. Cost: one pass over ``real``; for the gradient in ``synthetic`` alone, [S, D] is kept and read once.

    >>> real, synthetic = torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([[1.0], [5.0]], requires_grad=True)
    >>> distances = embedding_match(real, synthetic, torch.tensor([0, 2, 2, 3]), None, torch.tensor([0, 0, 1]), 2)
    >>> distances
    tensor([1., 0., 4.], grad_fn=...)
    >>> torch.autograd.grad(distances.sum(), synthetic)
    (tensor([[-2.],
            [-4.]]),)
    """
    if real.dtype not in _FLOATS:
        raise TypeError(f"real must be float32, float64, bfloat16 or float16, not {real.dtype}")
    if real.dim() != 2:
        raise ValueError(f"real must be [N, D], not {list(real.shape)}: flatten the rest with real.flatten(1)")
    check_constant_weights(offsets, weights, real.shape[0], real.device)
    dtype = accumulation_dtype(real.dtype)
    if synthetic.dtype != dtype:
        raise TypeError(f"synthetic must be {dtype} to match real's {real.dtype}, not {synthetic.dtype}")
    rows, columns = synthetic.shape if synthetic.dim() == 2 else (0, -1)
    if columns != real.shape[1] or num_classes < 1 or rows < num_classes or rows % num_classes:
        raise ValueError(
            f"synthetic must be [C * IPC, D] with C = {num_classes} and D = {real.shape[1]}, "
            f"not {list(synthetic.shape)}"
        )
    if synthetic.device != real.device:
        raise ValueError(f"synthetic is on {synthetic.device} and real on {real.device}: move one of them")
    _dispatch.check_classes(classes, offsets.shape[0] - 1, num_classes, real.device)
    chosen = _dispatch.choose("embedding_match", backend, real.device)
    if chosen == "reference":
        return reference.embedding_match(real, synthetic, offsets, weights, classes, num_classes)[0]
    if chosen == "interpret":
        return _dispatch.interpreted("embedding_match")(real, synthetic, offsets, weights, classes, num_classes)[0]
    return torch.ops.fastdd.embedding_match(real, synthetic, offsets, weights, classes, num_classes)[0]
