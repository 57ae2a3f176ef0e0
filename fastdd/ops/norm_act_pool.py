"""Instance norm, ReLU and pooling in one op: what lies between the convolutions of a ConvNet."""

import functools

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastdd.ops import _dispatch
from fastdd.reference import norm_act_pool as reference

_KERNELS = {"cpu": "native", "cuda": "triton"}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16)


def _triton(name: str, *arguments):
    from fastdd.kernels import norm_act_pool as kernels

    return getattr(kernels, name)(*arguments)


_FORWARD = _dispatch.define(
    "norm_act_pool(Tensor x, Tensor weight, Tensor bias, float eps, str pool) -> (Tensor, Tensor)",
    reference.forward,
    _KERNELS,
)
_BACKWARD = _dispatch.define(
    "norm_act_pool_backward(Tensor g, Tensor x, Tensor weight, Tensor bias, Tensor stats, str pool)"
    " -> (Tensor, Tensor, Tensor)",
    reference.backward,
    _KERNELS,
)
_SECOND = _dispatch.define(
    "norm_act_pool_double_backward(Tensor u, Tensor vw, Tensor vb, Tensor g, Tensor x, Tensor weight, Tensor bias,"
    " Tensor stats, str pool) -> (Tensor, Tensor, Tensor)",
    reference.double_backward,
    _KERNELS,
)
# Those of networks whose norms are constants, in which most methods match: without the sums over images. Elsewhere than
# on GPUs they come along for nothing.
_SLOPE = _dispatch.define(
    "norm_act_pool_slope(Tensor g, Tensor x, Tensor weight, Tensor bias, Tensor stats, str pool) -> Tensor",
    reference.slope,
    {"cuda": "triton"},
)
_SLOPE_BACKWARD = _dispatch.define(
    "norm_act_pool_slope_backward(Tensor u, Tensor g, Tensor x, Tensor weight, Tensor bias, Tensor stats, str pool)"
    " -> (Tensor, Tensor)",
    reference.slope_backward,
    {"cuda": "triton"},
)


def _forward_fake(x, weight, bias, eps, pool):
    n, h, w, c = x.shape
    size = (n, h, w, c) if pool == "none" else (n, h // 2, w // 2, c)
    return x.new_empty(size), weight.new_empty((n, 2, c))


def _backward_fake(g, x, weight, bias, stats, pool):
    return x.new_empty(x.shape), torch.empty_like(weight), torch.empty_like(weight)


def _second_fake(u, vw, vb, g, x, weight, bias, stats, pool):
    return g.new_empty(g.shape), x.new_empty(x.shape), torch.empty_like(weight)


def _forward_setup(ctx, inputs, output):
    x, weight, bias, _, ctx.pool = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros for the statistics would be a launch of their own
    ctx.save_for_backward(x, weight, bias, output[1])


def _forward_backward(ctx, g, _):
    if g is None:
        return (None,) * 5
    if g.is_cuda and not any(ctx.needs_input_grad[1:3]):
        return torch.ops.fastdd.norm_act_pool_slope(g, *ctx.saved_tensors, ctx.pool), *(None,) * 4
    return *torch.ops.fastdd.norm_act_pool_backward(g, *ctx.saved_tensors, ctx.pool), None, None


def _backward_setup(ctx, inputs, output):
    *tensors, ctx.pool = inputs
    ctx.save_for_backward(*tensors)


def _backward_backward(ctx, u, vw, vb):
    to_g, to_x, to_w = torch.ops.fastdd.norm_act_pool_double_backward(u, vw, vb, *ctx.saved_tensors, ctx.pool)
    # ReLU's second derivative is zero, so the bias, which only moves the mask, gets none.
    return to_g, to_x, to_w, None, None, None


def _slope_backward(ctx, u):
    to_g, to_x = torch.ops.fastdd.norm_act_pool_slope_backward(u, *ctx.saved_tensors, ctx.pool)
    return to_g, to_x, *(None,) * 4


def _second_backward(ctx, *_):
    raise RuntimeError("norm_act_pool has no third derivative (norm_act_pool_double_backward is not differentiable)")


class _InterpretedBackward(torch.autograd.Function):
    """Triton in the interpreter is called past the dispatcher, so the derivatives registered there don't apply."""

    @staticmethod
    def forward(*inputs):
        return _triton("norm_act_pool_backward", *inputs)

    setup_context = staticmethod(_backward_setup)

    @staticmethod
    @once_differentiable
    def backward(ctx, u, vw, vb):
        return *_triton("norm_act_pool_double_backward", u, vw, vb, *ctx.saved_tensors, ctx.pool), None, None, None


class _Interpreted(torch.autograd.Function):
    @staticmethod
    def forward(*inputs):
        return _triton("norm_act_pool", *inputs)

    setup_context = staticmethod(_forward_setup)

    @staticmethod
    def backward(ctx, g, _):
        if g is None:
            return (None,) * 5
        return *_InterpretedBackward.apply(g, *ctx.saved_tensors, ctx.pool), None, None


_dispatch.register_triton(_FORWARD, functools.partial(_triton, "norm_act_pool"))
_dispatch.register_triton(_BACKWARD, functools.partial(_triton, "norm_act_pool_backward"))
_dispatch.register_triton(_SECOND, functools.partial(_triton, "norm_act_pool_double_backward"))
_dispatch.register_triton(_SLOPE, functools.partial(_triton, "norm_act_pool_slope"))
_dispatch.register_triton(_SLOPE_BACKWARD, functools.partial(_triton, "norm_act_pool_slope_backward"))
_dispatch.register_fake(_SLOPE, lambda g, x, *_: x.new_empty(x.shape))
_dispatch.register_fake(_SLOPE_BACKWARD, lambda u, g, x, *_: (g.new_empty(g.shape), x.new_empty(x.shape)))
_dispatch.register_fake(_FORWARD, _forward_fake)
_dispatch.register_fake(_BACKWARD, _backward_fake)
_dispatch.register_fake(_SECOND, _second_fake)
_dispatch.register_autograd(_FORWARD, _forward_backward, _forward_setup)
_dispatch.register_autograd(_BACKWARD, _backward_backward, _backward_setup, constant=["stats"])
_dispatch.register_autograd(_SLOPE, _slope_backward, _backward_setup, constant=["weight", "bias", "stats"])
_dispatch.register_autograd(_SLOPE_BACKWARD, _second_backward, lambda ctx, inputs, output: None)
_dispatch.register_autograd(_SECOND, _second_backward, lambda ctx, inputs, output: None)


def check_affine(weight: Tensor, bias: Tensor, channels: int, device: torch.device) -> None:
    """ValueError unless a norm's weight and bias are floating point, one of each channel, on the images' device."""
    for name, value in (("weight", weight), ("bias", bias)):
        if value.shape != (channels,) or not value.is_floating_point():
            raise ValueError(f"{name} must be floating point [{channels}], not {value.dtype} {list(value.shape)}")
        if value.device != device:
            raise ValueError(f"{name} is on {value.device}, and not on {device}: move one of them")


@_dispatch.public
def norm_act_pool(
    x: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5, pool: str = "avg", backend: str = "auto"
) -> Tensor:
    """Instance norm, ReLU and 2x2 pooling in one pass: ``y = pool(max(w (x - mean) / sqrt(var + eps) + b, 0))``.

    Mean and (biased) variance are those of every image and channel over its pixels: ``GroupNorm(C, C)``, the instance
    norm of the distillation literature's ConvNet, followed by ReLU and ``AvgPool2d(2)`` or ``MaxPool2d(2)``. An odd
    last row or column is part of the statistics and of no pooling window.

    Args:
        x: [N, C, H, W], float32, float64 or bfloat16 (computed in float32); fastest in channels-last memory, which it
            is brought into.
        weight, bias: [C], the norm's; float64 for float64 x, else used as float32.
        eps: added to the variance.
        pool: ``avg``, ``max`` (the first of equal pixels) or ``none``.
        backend: ``auto``, ``native`` (C++, CPU), ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto``
            means.

    Returns:
        [N, C, H // 2, W // 2] ([N, C, H, W] for ``none``), of x's dtype, in channels-last memory.

    Differentiable twice, in x, weight and bias.

    Raises:
        ValueError, TypeError: a shape, dtype, device or pool that does not fit.
        RuntimeError: a backend asked for by name that can't run here; a third derivative.

    Two runs are bitwise equal, and do not depend on the number of threads. Cost: x is read once from memory and once
    from cache; backward reads x and the gradient the same way; nothing between the layers is kept.

    >>> x = torch.tensor([[[[0.0, 0.0], [0.0, 4.0]]]])
    >>> norm_act_pool(x, torch.ones(1), torch.zeros(1), eps=0.0)  # (4 - 1) / sqrt(3) is one of four pixels
    tensor([[[[0.4330]]]])
    """
    if x.dtype not in _FLOATS:
        raise TypeError(f"x must be float32, float64 or bfloat16, not {x.dtype}")
    if x.dim() != 4:
        raise ValueError(f"x must be [N, C, H, W], not {list(x.shape)}")
    if pool not in reference.POOLS:
        raise ValueError(f"pool must be one of {', '.join(reference.POOLS)}, not {pool!r}")
    _, channels, height, width = x.shape
    if height * width == 0 or (pool != "none" and min(height, width) < 2):
        raise ValueError(f"images of {height}x{width} pixels are too small for pool={pool!r}")
    check_affine(weight, bias, channels, x.device)
    chosen = _dispatch.choose("norm_act_pool", backend, x.device)
    if chosen == "reference":
        return reference.norm_act_pool(x, weight, bias, eps, pool)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    run = _Interpreted.apply if chosen == "interpret" else torch.ops.fastdd.norm_act_pool
    y, _ = run(x.permute(0, 2, 3, 1), weight.to(wide), bias.to(wide), eps, pool)
    return y.permute(0, 3, 1, 2)
