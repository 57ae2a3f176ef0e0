"""The first block of a ConvNet in one differentiable op: few channels in, the largest activations of the network."""

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.ops.by_segment import BySegment
from fastdd.ops.conv3x3 import conv3x3
from fastdd.ops.conv_block import ConvBlock
from fastdd.ops.norm_act_pool import norm_act_pool
from fastdd.reference import conv3x3 as reference
from fastdd.reference.norm_act_pool import POOLS

_KERNELS = {"cpu": "native"}
# From here on the convolution costs too much to make it twice.
_MOST_CHANNELS = 15

_FORWARD = _dispatch.define(
    "conv_norm_act_pool(Tensor x, Tensor filters, Tensor? shift, Tensor weight, Tensor bias, float eps, str pool)"
    " -> (Tensor, Tensor)",
    reference.conv_norm_act_pool,
    _KERNELS,
)
_BACKWARD = _dispatch.define(
    "conv_norm_act_pool_backward(Tensor g, Tensor x, Tensor filters, Tensor weight, Tensor bias, Tensor stats,"
    " str pool) -> (Tensor, Tensor, Tensor)",
    reference.conv_norm_act_pool_backward,
    _KERNELS,
)

_IMAGE_GRADIENT = _dispatch.define(
    "conv_norm_act_pool_image_gradient(Tensor g, Tensor x, Tensor filters, Tensor weight, Tensor bias, Tensor stats,"
    " str pool) -> Tensor",
    reference.conv_norm_act_pool_image_gradient,
    _KERNELS,
)


def _forward_fake(x, filters, shift, weight, bias, eps, pool):
    n, h, w, _ = x.shape
    channels = len(filters)
    size = (n, h, w, channels) if pool == "none" else (n, h // 2, w // 2, channels)
    return x.new_empty(size), weight.new_empty((n, 2, channels))


def _backward_fake(g, x, filters, weight, bias, stats, pool):
    return filters.new_empty(filters.shape), torch.empty_like(weight), torch.empty_like(weight)


def _setup(ctx, inputs, output):
    x, filters, _, weight, bias, _, ctx.pool = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, filters, weight, bias, output[1])


def _derivative(ctx, g, _):
    x, filters, weight, bias, stats = ctx.saved_tensors
    to_shift = weight.new_zeros(weight.shape) if ctx.needs_input_grad[2] else None
    if not (ctx.needs_input_grad[0] or torch.is_grad_enabled()):
        to_filters, *norms = torch.ops.fastdd.conv_norm_act_pool_backward(g, x, filters, weight, bias, stats, ctx.pool)
        return None, to_filters, to_shift, *norms, None, None
    if not (any(ctx.needs_input_grad[1:5]) or torch.is_grad_enabled()):
        to_x = torch.ops.fastdd.conv_norm_act_pool_image_gradient(g, x, filters, weight, bias, stats, ctx.pool)
        return to_x, *(None,) * 6
    # With both gradients, or to be differentiated once more: by ops that have derivatives.
    z = torch.ops.fastdd.conv3x3(x, filters, None, False)
    dz, *norms = torch.ops.fastdd.norm_act_pool_backward(g, z, weight, bias, stats, ctx.pool)
    to_x = torch.ops.fastdd.conv3x3(dz, filters, None, True) if ctx.needs_input_grad[0] else None
    return to_x, torch.ops.fastdd.conv3x3_weight(x, dz), to_shift, *norms, None, None


_dispatch.register_fake(_FORWARD, _forward_fake)
_dispatch.register_fake(_BACKWARD, _backward_fake)
_dispatch.register_autograd(_FORWARD, _derivative, _setup)
_dispatch.register_fake(_IMAGE_GRADIENT, lambda g, x, *_: x.new_empty(x.shape))
for _name in (_BACKWARD, _IMAGE_GRADIENT):
    _dispatch.register_no_autograd(_name)


@_dispatch.public
def conv_norm_act_pool(
    x: Tensor,
    filters: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    shift: Tensor | None = None,
    eps: float = 1e-5,
    pool: str = "avg",
    backend: str = "auto",
    by_segment: BySegment | None = None,
) -> Tensor:
    """3x3 convolution, instance norm, ReLU and 2x2 pooling: ``norm_act_pool(conv3x3(x, filters), weight, bias)``.

    Made for the first block of a network, whose images have few channels, where either its parameters or its images get
    a gradient: the convolution's output, the largest tensor of the network, stays in the core's cache, image by image,
    and is made again for the backward pass, which takes less time than reading it from memory.

    Args:
        x: [N, I, H, W], floating point; fastest in channels-last memory, which it is brought into.
        filters: [O, I, 3, 3], of x's dtype.
        weight, bias: [O], the norm's.
        shift: [O], the convolution's bias. The norm subtracts every channel's mean, and the bias with it: it changes
            nothing, and its gradient is zero.
        eps: added to the variance.
        pool: ``avg``, ``max`` or ``none``.
        backend: ``auto``, ``native`` (C++, CPU), ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto``
            means. The C++ kernels take float32 and up to 15 channels. On GPUs it is :class:`ConvBlock` where nothing
            needs a gradient and the Triton kernels of :func:`conv3x3` are chosen. All else is one op after the other.
        by_segment: takes the filters' gradients per segment (float32 on CPUs), for :func:`fastdd.ops.group_grad`.

    Returns:
        [N, O, H // 2, W // 2] ([N, O, H, W] for ``none``), in channels-last memory.

    Differentiable twice, in all tensors.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`conv3x3` and :func:`norm_act_pool`.

    Two runs of the C++ kernels are bitwise equal, and do not depend on the number of threads. Cost: the
    convolution twice and its weight or data gradient (where both are wanted, or a second derivative, the convolution's
    output is written); 1 MB a thread and the result for 32x32 pixels and 128 filters.

    >>> x = torch.tensor([[[[0.0, 0.0], [0.0, 4.0]]]])
    >>> middle = torch.zeros(1, 1, 3, 3)
    >>> middle[0, 0, 1, 1] = 1.0
    >>> conv_norm_act_pool(x, middle, torch.ones(1), torch.zeros(1), eps=0.0)
    tensor([[[[0.4330]]]])
    """
    if x.dtype == torch.float32 and x.dim() == 4 and x.shape[1] <= _MOST_CHANNELS:
        fits = filters.dtype == weight.dtype == bias.dtype == x.dtype and pool in POOLS and min(x.shape[2:]) >= 2
        fits = fits and filters.shape[1:] == (x.shape[1], 3, 3) and weight.shape == bias.shape == filters.shape[:1]
        fits = fits and (shift is None or (shift.dtype == x.dtype and shift.shape == filters.shape[:1]))
        on_cpu = x.device.type == filters.device.type == weight.device.type == bias.device.type == "cpu"
        if fits and on_cpu and _dispatch.choose("conv_norm_act_pool", backend, x.device) == "dispatch":
            x = x.permute(0, 2, 3, 1)
            if by_segment is not None:
                return by_segment.conv_norm_act_pool(x, weight, bias, eps, pool).permute(0, 3, 1, 2)
            y, _ = torch.ops.fastdd.conv_norm_act_pool(x, filters, shift, weight, bias, eps, pool)
            return y.permute(0, 3, 1, 2)
    by_parts = x.device.type == "cuda" and _dispatch.choose("conv_block", backend, x.device) == "dispatch"
    if by_parts and not _needs_gradient(x, filters, shift, weight, bias):
        return ConvBlock(filters, weight, bias, eps=eps, pool=pool, copy=False, backend=backend)(x)
    if by_segment is None:
        z = conv3x3(x, filters, shift, backend=backend)
    else:
        z = by_segment.conv3x3(x.permute(0, 2, 3, 1), shift).permute(0, 3, 1, 2)
    return norm_act_pool(z, weight, bias, eps=eps, pool=pool, backend=backend)


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
