"""3x3 convolution, forward and backward: what training a ConvNet spends its time on."""

import torch
from torch import Tensor, nn

from fastdd.ops import _dispatch
from fastdd.reference import conv3x3 as reference

_KERNELS = {"cpu": "native"}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16)

_CONV = _dispatch.define(
    "conv3x3(Tensor x, Tensor filters, Tensor? bias, bool adjoint) -> Tensor", reference.conv3x3, _KERNELS
)
_WEIGHT = _dispatch.define("conv3x3_weight(Tensor x, Tensor g) -> Tensor", reference.conv3x3_weight, _KERNELS)


def _conv_fake(x, filters, bias, adjoint):
    return x.new_empty((*x.shape[:3], filters.shape[1 if adjoint else 0]))


def _weight_fake(x, g):
    return x.new_empty((g.shape[3], x.shape[3], 3, 3))


def _conv_setup(ctx, inputs, output):
    x, filters, _, ctx.adjoint = inputs
    ctx.save_for_backward(x, filters)


def _conv_backward(ctx, g):
    (x, filters), needs = ctx.saved_tensors, ctx.needs_input_grad
    to_x = torch.ops.fastdd.conv3x3(g, filters, None, not ctx.adjoint) if needs[0] else None
    to_filters = torch.ops.fastdd.conv3x3_weight(*((g, x) if ctx.adjoint else (x, g))) if needs[1] else None
    return to_x, to_filters, g.sum((0, 1, 2)) if needs[2] else None, None


def _weight_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _weight_backward(ctx, v):
    (x, g), needs = ctx.saved_tensors, ctx.needs_input_grad
    to_x = torch.ops.fastdd.conv3x3(g, v, None, True) if needs[0] else None
    return to_x, torch.ops.fastdd.conv3x3(x, v, None, False) if needs[1] else None


_dispatch.register_fake(_CONV, _conv_fake)
_dispatch.register_fake(_WEIGHT, _weight_fake)
_dispatch.register_autograd(_CONV, _conv_backward, _conv_setup)
_dispatch.register_autograd(_WEIGHT, _weight_backward, _weight_setup)
