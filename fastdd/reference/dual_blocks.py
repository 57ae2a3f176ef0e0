"""A ConvNet's blocks on dual numbers, in plain PyTorch: ground truth and fallback.

A dual number ``x + e dx``, with ``e^2 = 0``, has a value and a tangent. Of a gradient at the parameters ``w + e dw``
the tangent is ``H dw``, the Hessian times a vector, and of the images' gradient the mixed second derivative times it. A
convolution, its data gradient and its weight gradient are bilinear, so the tangent of each is two convolutions:

    z = x * w,            dz = dx * w + x * dw
    to_x = g *' w,        dto_x = dg *' w + g *' dw           (*' is the adjoint)
    to_w = x (x) g,       dto_w = dx (x) g + x (x) dg

With the values z and to_x, that are needed for the tangents, but without to_w, which is not, these are 8 convolutions;
the values alone, to_w included, are 3. Differentiating the graph of a gradient takes 9.

All tensors are [N, H, W, C]; results are written to tensors that are given. Where tangents are None, values alone are
computed.
"""

import torch
from torch import Tensor

from fastdd.reference import conv3x3 as convolution
from fastdd.reference import norm_act_pool as norm


def conv3x3(
    x: Tensor,
    dx: Tensor | None,
    filters: Tensor,
    dfilters: Tensor | None,
    adjoint: bool,
    y: Tensor,
    dy: Tensor | None,
) -> None:
    """y and dy of x and the filters as those of :func:`fastdd.reference.conv3x3.conv3x3`; a dx of None is zero."""
    if dy is not None:
        tangent = convolution.conv3x3(x, dfilters, None, adjoint)
        if dx is not None:
            tangent += convolution.conv3x3(dx, filters, None, adjoint)
    y.copy_(convolution.conv3x3(x, filters, None, adjoint))
    if dy is not None:
        dy.copy_(tangent)


def conv3x3_weight(x: Tensor, dx: Tensor | None, g: Tensor, dg: Tensor | None, out: Tensor) -> None:
    """The filters' gradient, of x and g alone or the tangent of theirs and dx's and dg's."""
    if dx is None:
        out.copy_(convolution.conv3x3_weight(x, g))
    else:
        out.copy_(convolution.conv3x3_weight(dx, g) + convolution.conv3x3_weight(x, dg))


def norm_act_pool(
    z: Tensor,
    dz: Tensor | None,
    weight: Tensor,
    dweight: Tensor | None,
    bias: Tensor,
    dbias: Tensor | None,
    eps: float,
    pool: str,
    y: Tensor,
    dy: Tensor | None,
    stats: Tensor,
    dstats: Tensor | None,
) -> None:
    """y, dy and ``stats`` as :func:`fastdd.reference.norm_act_pool.forward`; ``dstats`` [N, 2, C] are the means of dz
    and of dz times the normalised z, over pixels."""
    values, own = norm.forward(z, weight, bias, eps, pool)
    y.copy_(values)
    stats.copy_(own)
    if dy is not None:
        # The derivative of the backward pass in its upstream gradient, in which it is linear, is the forward tangent.
        dy.copy_(norm.double_backward(dz, dweight, dbias, torch.zeros_like(y), z, weight, bias, own, pool)[0])
        normalised = (z - own[:, 0, None, None]) * own[:, 1, None, None]
        dstats.copy_(torch.stack([dz.mean((1, 2)), (dz * normalised).mean((1, 2))], 1))


def norm_act_pool_backward(
    g: Tensor,
    dg: Tensor | None,
    z: Tensor,
    dz: Tensor | None,
    weight: Tensor,
    dweight: Tensor | None,
    bias: Tensor,
    dbias: Tensor | None,
    pool: str,
    stats: Tensor,
    dstats: Tensor | None,
    to_weight: Tensor,
    to_bias: Tensor,
) -> None:
    """The gradient in z and its tangent, in place of z and dz; those of weight and bias, or only their tangents."""
    to_z, *to_norm = norm.backward(g, z, weight, bias, stats, pool)
    if dg is not None:
        _, curved, of_weight = norm.double_backward(dz, dweight, dbias, g, z, weight, bias, stats, pool)
        tangent, *to_norm = norm.backward(dg, z, weight, bias, stats, pool)
        to_norm[0] = to_norm[0] + of_weight
        dz.copy_(curved + tangent)
    z.copy_(to_z)
    to_weight.copy_(to_norm[0])
    to_bias.copy_(to_norm[1])


def first_block(
    x: Tensor,
    filters: Tensor,
    dfilters: Tensor | None,
    weight: Tensor,
    dweight: Tensor | None,
    bias: Tensor,
    dbias: Tensor | None,
    eps: float,
    pool: str,
    y: Tensor,
    dy: Tensor | None,
    stats: Tensor,
    dstats: Tensor | None,
) -> None:
    """Convolution of images, which have no tangent, and :func:`norm_act_pool`."""
    z, dz = _convolved(x, filters, dfilters)
    norm_act_pool(z, dz, weight, dweight, bias, dbias, eps, pool, y, dy, stats, dstats)


def first_block_backward(
    g: Tensor,
    dg: Tensor | None,
    x: Tensor,
    filters: Tensor,
    dfilters: Tensor | None,
    weight: Tensor,
    dweight: Tensor | None,
    bias: Tensor,
    dbias: Tensor | None,
    pool: str,
    stats: Tensor,
    dstats: Tensor | None,
    to_x: Tensor | None,
    to_filters: Tensor | None,
    to_weight: Tensor,
    to_bias: Tensor,
) -> None:
    """Gradients, or only the tangents of them, of :func:`first_block`; of the images the tangent, for the asking."""
    z, dz = _convolved(x, filters, dfilters)
    norm_act_pool_backward(g, dg, z, dz, weight, dweight, bias, dbias, pool, stats, dstats, to_weight, to_bias)
    if to_filters is not None:
        to_filters.copy_(convolution.conv3x3_weight(x, z if dz is None else dz))
    if to_x is not None:
        to_x.copy_(convolution.conv3x3(dz, filters, None, True) + convolution.conv3x3(z, dfilters, None, True))


def _convolved(x: Tensor, filters: Tensor, dfilters: Tensor | None) -> tuple[Tensor, Tensor | None]:
    tangent = None if dfilters is None else convolution.conv3x3(x, dfilters, None, False)
    return convolution.conv3x3(x, filters, None, False), tangent
