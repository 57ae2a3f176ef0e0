"""Layers that give the gradients of their weights per segment of a batch: many short segments in one pass.

A pass over a few images costs more than its arithmetic: filters are prepared, and every operator is called, for each.
Of a batch of several segments, the outputs and the gradients in the inputs are those of the batch; only the gradients
of the weights are made segment by segment. All have the bits of a pass of its own for each segment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_Result = TypeVar("_Result")


class NotBySegment(Exception):
    """A layer can't tell the segments apart: it is not called on the samples of the batch, or runs on other kernels."""


@dataclass(frozen=True)
class BySegment:
    """A layer's weight for every segment of a batch.

    Attributes:
        ends: where segments begin and end, from 0 to the number of samples.
        weight: the layer's weight, without a gradient.
        leaves: that weight once for each segment, over the same memory: each gets its segment's gradient. None where
            nobody asks.
    """

    ends: list[int]
    weight: Tensor
    leaves: list[Tensor]

    def conv3x3(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """As :func:`fastdd.ops.conv3x3`, of x [N, H, W, I], in that layout."""
        return _Conv.apply(self._checked(x), self.weight, bias, self.ends, *self.leaves)

    def conv_norm_act_pool(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: str) -> Tensor:
        """As :func:`fastdd.ops.conv_norm_act_pool`, of x [N, H, W, I] that needs no gradient, in that layout."""
        return _Block.apply(self._checked(x), self.weight, weight, bias, eps, pool, self.ends, *self.leaves)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """As ``torch.nn.functional.linear``, of x [N, I]."""
        if x.dim() != 2:
            raise NotBySegment
        return _Linear.apply(self._checked(x), self.weight, bias, self.ends, *self.leaves)

    def _checked(self, x: Tensor) -> Tensor:
        if len(x) != self.ends[-1]:
            raise NotBySegment
        return x


def _each(ends: list[int], function: Callable[[slice], _Result]) -> list[_Result]:
    return [function(slice(start, end)) for start, end in pairwise(ends)]


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, filters, bias, ends, *leaves):
        ctx.save_for_backward(x, filters)
        ctx.ends, ctx.asked = ends, bool(leaves)
        return torch.ops.fastdd.conv3x3(x, filters, bias, False)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x, filters), g = ctx.saved_tensors, g.contiguous()
        to_x = torch.ops.fastdd.conv3x3(g, filters, None, True) if ctx.needs_input_grad[0] else None
        each = _each(ctx.ends, lambda part: torch.ops.fastdd.conv3x3_weight(x[part], g[part])) if ctx.asked else []
        return to_x, None, None, None, *each


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, filters, weight, bias, eps, pool, ends, *leaves):
        y, stats = torch.ops.fastdd.conv_norm_act_pool(x, filters, None, weight, bias, eps, pool)
        ctx.save_for_backward(x, filters, weight, bias, stats)
        ctx.ends, ctx.pool = ends, pool
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, filters, weight, bias, stats = ctx.saved_tensors
        g = g.contiguous()

        def to_filters(part: slice) -> Tensor:
            some = g[part], x[part], filters, weight, bias, stats[part], ctx.pool
            return torch.ops.fastdd.conv_norm_act_pool_backward(*some)[0]

        return *(None,) * 7, *_each(ctx.ends, to_filters)


class _Linear(torch.autograd.Function):
    # Its products segment by segment too: how a library's product rounds depends on the number of rows.
    @staticmethod
    def forward(ctx, x, weight, bias, ends, *leaves):
        ctx.save_for_backward(x, weight)
        ctx.ends, ctx.asked = ends, bool(leaves)
        return torch.cat(_each(ends, lambda part: F.linear(x[part], weight, bias)))

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        to_x = torch.cat(_each(ctx.ends, lambda part: g[part] @ weight)) if ctx.needs_input_grad[0] else None
        each = _each(ctx.ends, lambda part: g[part].t() @ x[part]) if ctx.asked else []
        return to_x, None, None, None, *each
