"""Blocks inside networks that stay the script's own: convolution, norm, activation and pooling run by our ops.

A network that returns more than the logits, or whose ``forward`` takes more than images, can't be replaced. What it is
built of can: ``nn.Sequential`` of layers of PyTorch's own types, which say exactly what is computed. They become
:class:`fastdd.models.blocks.Blocks` when the network has been made, whatever its class does with them: calls, slices
and single layers give what they gave.
"""

import functools
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastdd import ops
from fastdd.compat.hook import verify
from fastdd.compat.hook.counted import Entry
from fastdd.compat.hook.replacements import Replacement
from fastdd.compat.hook.saved import named_as
from fastdd.models.blocks import Blocks
from fastdd.ops._dispatch import transformed

# Multiply-adds, by filter position, of the largest convolution from which ours are faster on CPUs: of blocks that end
# with their pooling, and of others, whose large outputs have to be brought into PyTorch's order; among these, those of
# few channels, which are direct, do not count. On one core, widths 8 to 128: 0.2 to 1.1 times below, 1.0 to 3.7 from
# here on, in forward passes and with gradients of filters or of images.
_WORTH = {"pooled": 1 << 19, "not pooled": 1 << 23}
_FEW_CHANNELS = 16
_POOLINGS = (nn.AvgPool2d, nn.MaxPool2d)


def _fits(layer: nn.Module) -> bool:
    """Whether the layer is a convolution that our kernels compute; others gain nothing."""
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.weight.dtype == torch.float32
    )


def _as(kind: type[nn.Module], layer: nn.Module) -> nn.Module:
    """The layer's parameters, buffers and settings under another class."""
    made = kind.__new__(kind)
    made.__dict__.update(layer.__dict__)
    return made


class _OwnBlocks(Blocks):
    """A network's ``nn.Sequential``: counted, its first calls compared with its layers one by one."""

    entry: ClassVar[Entry]

    def forward(self, x: Tensor) -> Tensor:
        entry = type(self).entry
        if verify.checking() or transformed():
            return self._by_ours(x)
        entry.calls += 1
        if entry.fallen or self._small(x):
            entry.pass_on(entry.why or "too small to gain")
            return nn.Sequential.forward(self, x)
        started = perf_counter()
        try:
            if entry.due():
                entry.judge(verify.blocks(self, functools.partial(nn.Sequential.forward, self), self._by_ours, x))
            return nn.Sequential.forward(self, x) if entry.fallen else self._by_ours(x)
        finally:
            entry.seconds += perf_counter() - started

    def _small(self, x: Tensor) -> bool:
        if x.device.type != "cpu" or x.dim() != 4:
            return False
        pixels, largest = x.numel() // x.shape[1], {"pooled": 0, "not pooled": 0}
        for part in super()._parts():
            kind = "pooled" if type(part[-1]) in _POOLINGS else "not pooled"
            for layer in part:
                if _fits(layer) and (kind == "pooled" or layer.in_channels >= _FEW_CHANNELS):
                    largest[kind] = max(largest[kind], pixels * layer.in_channels * layer.out_channels)
                elif type(layer) in _POOLINGS:
                    pixels //= 4
        return all(largest[kind] < max(least, 1) for kind, least in _WORTH.items())

    def _parts(self) -> list[list[nn.Module]]:
        # Only for the call: a layer that the script calls by itself is PyTorch's, strides of its output included.
        return [[_as(ops.Conv2d, layer) if _fits(layer) else layer for layer in part] for part in super()._parts()]

    def _by_ours(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y.contiguous() if x.is_contiguous() else y  # the script may take views of it


def within(original: type[nn.Module], checks: int, on_first: Callable[[Entry], None]) -> None:
    """From now on, give the networks that ``original`` makes our blocks.

    Args:
        original: a class with a constructor of its own; stays as it is, but for what the constructor does at its end.
        checks: calls to compare.
        on_first: told of the row of the summary when a first network has such blocks.
    """
    known = Replacement(f"{original.__name__} (blocks)", "", "fastdd.models.blocks:Blocks", verify.blocks)
    entry = Entry(known.name, original.__module__, known, checks=checks)
    kind = named_as(nn.Sequential, _OwnBlocks, entry=entry)
    init = original.__init__

    @functools.wraps(init)
    def build(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        for module in list(self.modules()):
            if type(module) is nn.Sequential and any(map(_fits, module)):
                module.__class__ = kind
                if known.name not in told:
                    told.add(known.name)
                    on_first(entry)

    told: set[str] = set()
    original.__init__ = build
