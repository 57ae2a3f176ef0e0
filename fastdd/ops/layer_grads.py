"""Weight gradients of a layer per segment, from its input and its output's gradient: a rule for each kind of layer."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.ops.conv3x3 import Conv2d, runs_as_conv3x3
from fastdd.ops.grouped import grouped_conv_weight, grouped_outer
from fastdd.ops.segment_mean import segment_mean
from fastdd.reference.segment_mean import accumulation_dtype


def _segment_sums(values: Tensor, shared: list[int], offsets: Tensor, backend: str) -> Tensor:
    """Sums over the samples of every segment and over the dimensions ``shared``; [N, ...] -> [S, *shape]."""
    if shared:
        values = values.sum(shared, dtype=accumulation_dtype(values.dtype))
    means = segment_mean(values.flatten(1), offsets, backend=backend)
    return (means * offsets.diff()[:, None].to(means.dtype)).unflatten(1, values.shape[1:])


def _linear(
    layer: nn.Linear, x: Tensor, b: Tensor, offsets: Tensor, asked: set[str], backend: str
) -> dict[str, Tensor]:
    rows = b[0].numel() // b.shape[-1]
    out = {}
    if "weight" in asked:
        a = x.to(b.dtype).reshape(-1, x.shape[-1])
        out["weight"] = grouped_outer(
            a, b.reshape(-1, b.shape[-1]), None, offsets, rows_per_sample=rows, backend=backend
        )
    if "bias" in asked:
        out["bias"] = _segment_sums(b, [*range(1, b.dim() - 1)], offsets, backend)
    return out


def _conv(layer: nn.Conv2d, x: Tensor, b: Tensor, offsets: Tensor, asked: set[str], backend: str) -> dict[str, Tensor]:
    out = {}
    if "weight" in asked:
        padding = layer.padding
        if layer.padding_mode != "zeros" or padding == "same":
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode), (0, 0)
        elif padding == "valid":
            padding = (0, 0)
        out["weight"] = grouped_conv_weight(
            x.to(b.dtype),
            b,
            offsets,
            layer.kernel_size,
            stride=layer.stride,
            padding=padding,
            dilation=layer.dilation,
            groups=layer.groups,
            backend=backend,
        )
    if "bias" in asked:
        out["bias"] = _segment_sums(b, [2, 3], offsets, backend)
    return out


def _normalised(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's output before weight and bias."""
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(x, layer.num_groups, eps=layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return F.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
    running = layer.track_running_stats and not layer.training
    return F.instance_norm(
        x, *((layer.running_mean, layer.running_var) if running else ()), use_input_stats=not running, eps=layer.eps
    )


def _norm(layer: nn.Module, x: Tensor, b: Tensor, offsets: Tensor, asked: set[str], backend: str) -> dict[str, Tensor]:
    # Dimensions that share a weight: positions after the channels, or before what a layer norm normalises.
    shared = range(1, b.dim() - len(layer.normalized_shape)) if isinstance(layer, nn.LayerNorm) else range(2, b.dim())
    out = {}
    for name in asked:
        terms = b * _normalised(layer, x) if name == "weight" else b
        out[name] = _segment_sums(terms, [*shared], offsets, backend)
    return out


Rule = Callable[..., dict[str, Tensor]]

# By exact type and name: a subclass, or a layer that makes its weight from another parameter, may compute otherwise.
_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    Conv2d: _conv,
    nn.GroupNorm: _norm,
    nn.LayerNorm: _norm,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _norm),
}


def rule_of(layer: nn.Module) -> Rule | None:
    """The layer's rule; None if it has none."""
    return _RULES.get(Conv2d if runs_as_conv3x3(layer) else type(layer))
