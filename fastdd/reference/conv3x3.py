"""3x3 convolutions with stride 1 and padding 1, and their gradients, in plain PyTorch: ground truth and fallback."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.reference import norm_act_pool


def conv3x3(x: Tensor, filters: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
    """[N, H, W, O] of x [N, H, W, I] and filters [O, I, 3, 3]; of the adjoint, which takes filters [I, O, 3, 3]."""
    if filters.numel() == 0:  # oneDNN has no primitive for no channels
        zeros = (x.sum(3, keepdim=True) + filters.sum()) * 0  # of which both have a derivative
        y = zeros.expand(*x.shape[:3], filters.shape[1 if adjoint else 0])
        return (y if bias is None else y + bias).contiguous()
    convolve = F.conv_transpose2d if adjoint else F.conv2d
    return convolve(x.permute(0, 3, 1, 2), filters, bias, padding=1).permute(0, 2, 3, 1).contiguous()


def conv3x3_weight(x: Tensor, g: Tensor) -> Tensor:
    """Gradient [O, I, 3, 3] of the filters, from x [N, H, W, I] and the output's gradient g [N, H, W, O]."""
    inputs, outputs = x.shape[3], g.shape[3]
    if x.numel() == 0 or g.numel() == 0:
        return x.new_zeros((outputs, inputs, 3, 3))
    return torch.nn.grad.conv2d_weight(
        x.permute(0, 3, 1, 2), (outputs, inputs, 3, 3), g.permute(0, 3, 1, 2), padding=1
    ).contiguous()


def conv_norm_act_pool(
    x: Tensor, filters: Tensor, shift: Tensor | None, weight: Tensor, bias: Tensor, eps: float, pool: str
) -> tuple[Tensor, Tensor]:
    """y and stats as norm_act_pool's, of a convolution, whose bias ``shift`` the norm would only subtract again."""
    return norm_act_pool.forward(conv3x3(x, filters, None, False), weight, bias, eps, pool)


def conv_norm_act_pool_backward(
    g: Tensor, x: Tensor, filters: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, pool: str
) -> tuple[Tensor, ...]:
    """Gradients of filters, weight and bias."""
    z = conv3x3(x, filters, None, False)
    dz, to_weight, to_bias = norm_act_pool.backward(g, z, weight, bias, stats, pool)
    return conv3x3_weight(x, dz), to_weight, to_bias


def conv_norm_act_pool_image_gradient(
    g: Tensor, x: Tensor, filters: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, pool: str
) -> Tensor:
    """Gradient of x."""
    z = conv3x3(x, filters, None, False)
    return conv3x3(norm_act_pool.backward(g, z, weight, bias, stats, pool)[0], filters, None, True)
