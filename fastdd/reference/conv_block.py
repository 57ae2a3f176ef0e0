"""A block of ConvNet in plain PyTorch: ground truth and fallback."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.reference import norm_act_pool


def pack_filters(filters: Tensor, columns: int) -> Tensor:
    """Plain PyTorch needs no packed filters."""
    return filters.new_empty(0)


def pack_filters_bf16(filters: Tensor) -> Tensor:
    """Plain PyTorch needs no packed filters."""
    return filters.new_empty(0, dtype=torch.bfloat16)


def conv_block(
    x: Tensor, filters: Tensor, packed: Tensor, weight: Tensor, bias: Tensor, padding: int, eps: float, pool: str
) -> Tensor:
    """x [N, H, W, I] through a convolution without bias, instance norm, ReLU and pooling. See fastdd.ops.conv_block."""
    z = F.conv2d(x.permute(0, 3, 1, 2), filters, padding=padding)
    return norm_act_pool.forward(z.permute(0, 2, 3, 1), weight, bias, eps, pool)[0].to(torch.float32)


def conv_block_bf16(
    x: Tensor, filters: Tensor, packed: Tensor, weight: Tensor, bias: Tensor, padding: int, eps: float, pool: str
) -> Tensor:
    """:func:`conv_block` of bfloat16 x and float32 filters, computed in float32 and rounded once."""
    return conv_block(x.float(), filters, packed, weight, bias, padding, eps, pool).to(torch.bfloat16)
