"""Gradients of segments' mean cross-entropies in the logits: where the backward pass of group_grad begins."""

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.ops.segment_mean import check_segments
from fastdd.reference import loss_slopes as reference
from fastdd.reference.contents import check_range

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _define(schema: str) -> str:
    name = schema[: schema.index("(")]

    def launch(*arguments):
        from fastdd.kernels import loss_slopes as kernels

        return getattr(kernels, name)(*arguments)

    qualified = _dispatch.define(schema, getattr(reference, name), {"cuda": "triton"})
    _dispatch.register_triton(qualified, launch)
    return qualified


_SLOPES = _define("loss_slopes(Tensor logits, Tensor labels, Tensor offsets, Tensor? weights) -> Tensor")
_PULL = _define("loss_slopes_pull(Tensor h, Tensor logits, Tensor offsets, Tensor? weights) -> Tensor")


def _slopes_setup(ctx, inputs, output):
    logits, _, offsets, weights = inputs
    ctx.save_for_backward(logits, offsets, weights)


def _slopes_backward(ctx, h):
    # The matrix of second derivatives is symmetric.
    return _dispatch.peer(ctx, "loss_slopes_pull")(h, *ctx.saved_tensors), None, None, None


def _pull_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _pull_backward(ctx, g):
    h, logits, offsets, weights = ctx.saved_tensors
    to_h = to_logits = None
    if ctx.needs_input_grad[0]:
        to_h = _dispatch.peer(ctx, "loss_slopes_pull")(g, logits, offsets, weights).to(h.dtype)
    if ctx.needs_input_grad[1]:  # a third derivative, which no method takes: by plain PyTorch
        with torch.enable_grad():
            leaf = logits if logits.requires_grad else logits.detach().requires_grad_()
            pulled = reference.loss_slopes_pull(h, leaf, offsets, weights)
            (to_logits,) = torch.autograd.grad(pulled, leaf, g, create_graph=True)
    return to_h, to_logits, None, None


_dispatch.register_fake(_SLOPES, lambda logits, labels, offsets, weights: torch.empty_like(logits))
_dispatch.register_fake(_PULL, lambda h, logits, offsets, weights: torch.empty_like(logits))
_dispatch.register_autograd(_SLOPES, _slopes_backward, _slopes_setup, constant=["weights"])
_dispatch.register_autograd(_PULL, _pull_backward, _pull_setup, constant=["weights"])


@_dispatch.public
def loss_slopes(
    logits: Tensor, labels: Tensor, offsets: Tensor, weights: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Gradient in the logits of the sum of segments' mean cross-entropies: ``w_i / sum w (softmax(z_i) - e_label)``.

    The sum of weights is that of sample i's segment. The loss itself is not worked out.

    Args:
        logits: [N, C], float32, float64, bfloat16 or float16, sorted by segment; differentiable to any order.
        labels: int64 [N], contents are checked on the CPU only.
        offsets: int64 [S+1] on the logits' device, rising from 0 to N.
        weights: [N] floating point, at least 0; None means 1. Not differentiable.
        backend: ``auto``, ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto`` means.

    Returns:
        [N, C], of the logits' dtype, computed in float32 or wider; zeros in a segment of zero total weight.

    Raises:
        ValueError: a shape, dtype, device, offset or label that does not fit.
        TypeError: logits that are not floating point.
        RuntimeError: a backend asked for by name that can't run here.

    Two runs are bitwise equal. On GPUs one launch, and one for a derivative.

    >>> loss_slopes(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0, 2]))
    tensor([[-0.2500,  0.2500],
            [ 0.2500, -0.2500]])
    """
    if logits.dtype not in _FLOATS:
        raise TypeError(f"logits must be float32, float64, bfloat16 or float16, not {logits.dtype}")
    if logits.dim() != 2:
        raise ValueError(f"logits must be [N, C], not {list(logits.shape)}")
    if labels.dtype != torch.int64 or labels.shape != logits.shape[:1] or labels.device != logits.device:
        raise ValueError(
            f"labels must be int64 [{len(logits)}] on {logits.device}, "
            f"not {labels.dtype} {list(labels.shape)} on {labels.device}"
        )
    check_range("labels", labels, 0, logits.shape[1])
    check_segments(offsets, weights, len(logits), logits.device)
    if weights is not None and weights.requires_grad:
        raise ValueError("weights are not differentiable here: pass weights.detach()")
    chosen = _dispatch.choose("loss_slopes", backend, logits.device)
    if chosen == "reference":
        return reference.loss_slopes(logits, labels, offsets, weights)
    run = _dispatch.interpreted("loss_slopes") if chosen == "interpret" else torch.ops.fastdd.loss_slopes
    return run(logits, labels, offsets, weights)
