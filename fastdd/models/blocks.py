"""Convolution, norm, activation and pooling, run as one op where that gives what the layers would give."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fastdd import ops
from fastdd.models.layout import chunk_size
from fastdd.ops._dispatch import transformed

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
# From so many images on, preparing filters for a call costs less than it saves (32x32, two cores).
_MANY = 32
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.Sigmoid)
_POOLINGS: dict[type[nn.Module], str] = {nn.AvgPool2d: "avg", nn.MaxPool2d: "max"}


def untouched(layer: nn.Module) -> bool:
    """Whether a call of the layer is its class's forward and nothing else: what it passes on, nobody looks at."""
    return not (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
    )


def _halves(pool: nn.Module) -> bool:
    """Whether the pooling is over windows of 2x2, side by side."""
    return (
        pool.kernel_size in (2, (2, 2))
        and pool.stride in (2, (2, 2))
        and pool.padding in (0, (0, 0))
        and not pool.ceil_mode
        and getattr(pool, "divisor_override", None) is None
        and getattr(pool, "dilation", 1) in (1, (1, 1))
        and not getattr(pool, "return_indices", False)
    )


def pooling_of(
    norm: nn.Module | None = None, act: nn.Module | None = None, pool: nn.Module | None = None
) -> str | None:
    """What :func:`fastdd.ops.norm_act_pool` calls the layers' pooling; None where it is not what they compute.

    By exact type: a subclass, or a layer put in another's place, may compute otherwise.
    """
    if type(norm) is not nn.GroupNorm or norm.num_groups != norm.num_channels or type(act) is not nn.ReLU:
        return None
    if norm.weight is None or norm.bias is None or not (untouched(norm) and untouched(act)):
        return None
    if pool is None:
        return "none"
    return _POOLINGS[type(pool)] if type(pool) in _POOLINGS and _halves(pool) and untouched(pool) else None


def _ordinary(x: Tensor, norm: nn.Module) -> bool:
    """Whether x is computed with as the ops do: not under autocast, a transform of torch.func or forward-mode
    differentiation, nor while some hook wants to see every layer."""
    return (
        isinstance(x, Tensor)
        and x.dtype in _DTYPES
        and norm.weight.dtype == norm.bias.dtype == x.dtype
        and x.device.type in ("cpu", "cuda")
        and not torch.is_autocast_enabled(x.device.type)
        and not transformed()
        and not nn.modules.module._has_any_global_hook()
    )


def _own_kernel(conv: nn.Module, x: Tensor) -> bool:
    """Whether the convolution runs on this package's kernels, and nothing but it."""
    return ops.runs_as_conv3x3(conv) and untouched(conv) and conv.fits(x)


def _trains(*layers: nn.Module) -> bool:
    # Attributes, not parameters(): others may have put plain tensors in the parameters' places.
    return any(t is not None and t.requires_grad for layer in layers for t in (layer.weight, layer.bias))


def _needs_gradient(x: Tensor, *layers: nn.Module) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or _trains(*layers))


def run_block(x: Tensor, conv: nn.Module, *tail: nn.Module | None) -> Tensor:
    """The layers one after the other: a convolution, and most often norm, activation and pooling; None does nothing.

    Instance norm (``GroupNorm(C, C)``), ReLU and 2x2 pooling run as one op, which reads the convolution's output once,
    and with them a 3x3 convolution where not both its images and its parameters need a gradient; before a pooling of
    another kind they do without one. Everything else, and layers that have hooks, run by themselves: the same values
    and derivatives, to rounding.
    """
    pooling = pooling_of(*tail)
    if pooling is None and len(tail) == 3 and pooling_of(*tail[:2]) is not None:
        # PyTorch's own norm of channels-last images loses digits as they grow, 30 times as many at 224x224 as ours.
        return tail[2](run_block(x, conv, *tail[:2]))
    if pooling is None or not _ordinary(x, tail[0]):
        for layer in (conv, *tail):
            x = x if layer is None else layer(x)
        return x
    norm = tail[0]
    # What wants both, as a step that matches gradients, would make the convolution once more than by itself.
    if _own_kernel(conv, x) and not (x.requires_grad and (conv.by_segment is not None or _trains(conv, norm))):
        return ops.conv_norm_act_pool(
            conv.padded(x),
            conv.weight,
            norm.weight,
            norm.bias,
            shift=conv.bias,
            eps=norm.eps,
            pool=pooling,
            by_segment=conv.by_segment,
        )
    return ops.norm_act_pool(conv(x), norm.weight, norm.bias, eps=norm.eps, pool=pooling)


def _none_needs_gradient(x: Tensor, parts: Sequence[Sequence[nn.Module]]) -> bool:
    """Whether all of many images can go through :func:`_prepared` blocks."""
    return (
        isinstance(x, Tensor)
        and x.device.type == "cpu"
        and x.dim() == 4
        and len(x) >= _MANY
        and not torch.compiler.is_compiling()
        and all(pooling_of(*tail) is not None for _, *tail in parts)
        and all(_own_kernel(conv, x) and _ordinary(x, norm) for conv, norm, *_ in parts)
        and not _needs_gradient(x, *(layer for layers in parts for layer in layers[:2]))
    )


def _prepared_blocks(
    parts: Sequence[Sequence[nn.Module]], dtype: torch.dtype, *, pooled: bool = True
) -> list[ops.ConvBlock] | None:
    """The parts with their filters prepared, without their pooling where it is to be left out; None where one is none
    that :class:`fastdd.ops.ConvBlock` computes."""
    blocks = []
    for conv, *tail in parts:
        pooling = pooling_of(*tail)
        if pooling is None or not ops.runs_as_conv3x3(conv) or conv.kernel_size != (3, 3):
            return None
        norm = tail[0]
        blocks.append(
            ops.ConvBlock(
                conv.weight.detach(),
                norm.weight,
                norm.bias,
                padding=conv.padding[0],
                eps=norm.eps,
                pool=pooling if pooled else "none",
                dtype=dtype,
                copy=False,
            )
        )
    return blocks


def _prepared(parts: Sequence[Sequence[nn.Module]], dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
    blocks = _prepared_blocks(parts, dtype)
    if blocks is None:
        return None

    def forward(x: Tensor) -> Tensor:
        for block in blocks:
            x = block(x)
        return x

    return forward


def run_parts(x: Tensor, parts: Sequence[Sequence[nn.Module]]) -> Tensor:
    """``x`` [N, C, H, W] through blocks of layers, one after the other; ``parts`` are the layers of each.

    Many images that nothing needs a gradient of go through all blocks in chunks whose activations stay in cache.
    """
    if _none_needs_gradient(x, parts):
        # Filters are prepared anew each time: who writes to a parameter's .data leaves no trace of it, and of 256
        # images of 32x32 it is 0.6 % of the time.
        run = _prepared(parts, x.dtype)
        return torch.cat([run(some) for some in x.split(chunk_size(parts[0][0], x))])
    for layers in parts:
        x = run_block(x, *layers)
    return x


class Blocks(nn.Sequential):
    """``nn.Sequential`` whose blocks of convolution, norm, activation and pooling run as :func:`run_block`."""

    def _parts(self) -> list[list[nn.Module]]:
        """The layers, those of a block together."""
        layers, parts = [*self], []
        while layers:
            size = 1
            if len(layers) > 2 and isinstance(layers[0], nn.Conv2d) and isinstance(layers[2], nn.ReLU):
                size = 4 if len(layers) > 3 and type(layers[3]) in _POOLINGS else 3
            parts.append(layers[:size])
            layers = layers[size:]
        return parts

    def forward(self, x: Tensor) -> Tensor:
        return run_parts(x, self._parts())

    def stages(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """What every activation returns, [N, channels, H, W], before pooling, and what :meth:`forward` returns."""
        maps = []
        for layers in self._parts():
            if len(layers) == 1:
                x = layers[0](x)
                if isinstance(layers[0], _ACTIVATIONS):
                    maps.append(x)
            else:
                x = run_block(x, *layers[:3])
                maps.append(x)
                x = layers[3](x) if len(layers) > 3 else x
        return maps, x

    def prepared(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
        """:meth:`forward` for many calls, until the parameters change, in ``dtype``, without gradients.

        The filters are prepared once. The biases of convolutions are left out: a norm subtracts them again. None where
        a block is none that :class:`fastdd.ops.ConvBlock` computes.
        """
        return _prepared(self._parts(), dtype)

    def writes_pooled(self, dtype: torch.dtype) -> bool:
        """Whether :meth:`prepared` writes of every block's activations the pooled ones only."""
        blocks = _prepared_blocks(self._parts(), dtype)
        return blocks is not None and all(block.fused and block.pool != "none" for block in blocks)

    def prepared_stages(self, dtype: torch.dtype) -> Callable[[Tensor], tuple[list[Tensor], Tensor]] | None:
        """:meth:`stages` as :meth:`prepared` is :meth:`forward`."""
        parts = self._parts()
        blocks = _prepared_blocks(parts, dtype, pooled=False)
        if blocks is None:
            return None

        def stages(x: Tensor) -> tuple[list[Tensor], Tensor]:
            maps = []
            for block, (_, _, _, *pool) in zip(blocks, parts, strict=True):
                maps.append(block(x))
                x = pool[0](maps[-1]) if pool else maps[-1]
            return maps, x

        return stages
