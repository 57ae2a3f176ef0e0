"""Blocks inside networks that stay the script's own: convolution, norm, activation and pooling run by our ops.

A network that returns more than the logits, or whose ``forward`` takes more than images, can't be replaced. What it is
built of can: ``nn.Sequential`` of layers of PyTorch's own types, which say exactly what is computed. They become
:class:`fastdd.models.blocks.Blocks` when the network has been made, whatever its class does with them: calls, slices
and single layers give what they gave.
"""

import copy
import copyreg
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
from fastdd.models.blocks import Blocks
from fastdd.ops._dispatch import transformed

# Outputs of the first convolution from which ours are faster on CPUs (one core: 0.3 to 0.9 times below, 1.1 to 3.7 from
# here on, in forward passes and with both kinds of gradients).
_WORTH = 1 << 16


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
            return super().forward(x)
        entry.calls += 1
        if entry.fallen or self._small(x):
            entry.pass_on(entry.why or "too small to gain")
            return self._layer_by_layer(x)
        started = perf_counter()
        try:
            if entry.due():
                entry.judge(verify.blocks(self, self._layer_by_layer, super().forward, x))
            return self._layer_by_layer(x) if entry.fallen else super().forward(x)
        finally:
            entry.seconds += perf_counter() - started

    def _small(self, x: Tensor) -> bool:
        first = next((layer for layer in self if isinstance(layer, nn.Conv2d)), None)
        if first is None:
            return True
        return x.device.type == "cpu" and x.dim() == 4 and x.numel() // x.shape[1] * first.out_channels < _WORTH

    def _layer_by_layer(self, x: Tensor) -> Tensor:
        for layer in self:
            # With hooks ours is PyTorch's.
            ours = type(layer) is ops.Conv2d and not (layer._forward_hooks or layer._forward_pre_hooks)
            x = nn.Conv2d.forward(layer, x) if ours else layer(x)
        return x

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """As PyTorch's own, so that what is pickled loads where fastdd is not."""
        layers = {
            name: _as(nn.Conv2d, layer) if type(layer) is ops.Conv2d else layer for name, layer in self._modules.items()
        }
        return copyreg._reconstructor, (nn.Sequential, object, None), {**self.__dict__, "_modules": layers}


def within(original: type[nn.Module], checks: int, on_first: Callable[[Entry], None]) -> None:
    """From now on, give the networks that ``original`` makes our blocks.

    Args:
        original: a class with a constructor of its own; stays as it is, but for what the constructor does at its end.
        checks: calls to compare.
        on_first: told of the row of the summary when a first network has such blocks.
    """
    known = Replacement(f"{original.__name__} (blocks)", "", "fastdd.models.blocks:Blocks", verify.blocks)
    entry = Entry(known.name, original.__module__, known, checks=checks)
    # Named as PyTorch's, for who prints a network or looks at the names of its layers.
    kind = type("Sequential", (_OwnBlocks,), {"entry": entry, "__module__": nn.Sequential.__module__})
    init = original.__init__

    @functools.wraps(init)
    def build(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        for module in list(self.modules()):
            if type(module) is nn.Sequential and any(map(_fits, module)):
                for layer in module:
                    if _fits(layer):
                        layer.__class__ = ops.Conv2d
                module.__class__ = kind
                if known.name not in told:
                    told.add(known.name)
                    on_first(entry)

    told: set[str] = set()
    original.__init__ = build
