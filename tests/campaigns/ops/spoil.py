"""What makes a right call hostile: other layouts, values, shapes, types, kinds and devices of its arguments."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from calls import Arguments, Draw
from torch import Tensor, nn

DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.bool),
    *(torch.uint8, torch.int8, torch.int32, torch.int64, torch.float8_e4m3fn, torch.uint16),
)
SCALARS = (0, 1, -1, 2, 2**31, 2**62, -(2**62), 2**80, 0.0, 1.5, -1.0, 1e-300, 1e300, math.nan, math.inf, -math.inf)
OBJECTS = (None, "x", "", "max", "none", b"x", [], [1.0, 2.0], (1,), {}, object(), True, 1 + 2j, np.float32(1.0))


class Labelled(Tensor):
    """A subclass of tensors that changes nothing."""


def _strided(draw: Draw, t: Tensor) -> Tensor:
    wide = t.new_zeros([2 * size for size in t.shape])
    part = wide[tuple(slice(None, None, 2) for _ in t.shape)]
    return part.copy_(t)


def _swapped(draw: Draw, t: Tensor) -> Tensor:
    order = [*range(t.dim())]
    draw.random.shuffle(order)
    back = sorted(range(t.dim()), key=order.__getitem__)
    return t.permute(order).contiguous().permute(back)


def _expanded(draw: Draw, t: Tensor) -> Tensor:
    if not t.numel():
        return t
    dim = draw.random.randrange(t.dim())
    return t.narrow(dim, 0, 1).expand(t.shape)


def _shifted(draw: Draw, t: Tensor) -> Tensor:
    memory = t.new_zeros(t.numel() + 3)
    return memory[3:].view(t.shape).copy_(t)


def _far(draw: Draw, t: Tensor) -> Tensor:
    """Rows that are megabytes apart."""
    if t.numel() == 0 or t.shape[0] > 8:
        return t
    row = max(t[0].numel(), 1) + 2**18
    memory = t.new_zeros(row * t.shape[0])
    return memory.view(t.shape[0], row)[:, : t[0].numel()].unflatten(1, t.shape[1:] or (1,)).view(t.shape).copy_(t)


def _negated(draw: Draw, t: Tensor) -> Tensor:
    return torch._neg_view(-t) if t.is_floating_point() else t


def _last_channels(draw: Draw, t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


# The same values, laid out otherwise: whatever the call is, it has to be answered alike.
LAYOUTS = (_strided, _swapped, _shifted, _far, _negated, _last_channels)


def _put(draw: Draw, t: Tensor, value: float) -> Tensor:
    t = t.clone()
    if t.numel():
        t.view(-1)[draw.random.randrange(t.numel())] = value
    return t


def _not_finite(draw: Draw, t: Tensor) -> Tensor:
    return _put(draw, t, draw.pick(math.nan, math.inf, -math.inf)) if t.is_floating_point() else t


def _scaled(draw: Draw, t: Tensor) -> Tensor:
    factor = draw.pick(1e-40, 1e-30, 1e-18, 1e-6, 1e4, 1e10, 1e18, 1e30, 1e38)
    return (t.double() * factor).to(t.dtype) if t.is_floating_point() else t


def _constant(draw: Draw, t: Tensor) -> Tensor:
    return torch.full_like(t, draw.pick(0, 0, 1)) if t.is_floating_point() else t


def _wrong_index(draw: Draw, t: Tensor) -> Tensor:
    if t.is_floating_point():
        return t
    values = (-1, -2, -(2**40), 2**31, 2**40, 2**62, -(2**63), len(t) if t.dim() else 1, 10**7)
    return _put(draw, t, draw.pick(*values)) if t.dtype == torch.int64 else t


def _unsorted(draw: Draw, t: Tensor) -> Tensor:
    return t.flip(0) if t.dim() and not t.is_floating_point() else t


VALUES = (_not_finite, _scaled, _constant, _wrong_index, _unsorted, _expanded)


def _zero_size(draw: Draw, t: Tensor) -> Tensor:
    return t.narrow(draw.random.randrange(t.dim()), 0, 0) if t.dim() else t


def _one(draw: Draw, t: Tensor) -> Tensor:
    return t[:1]


def _longer(draw: Draw, t: Tensor) -> Tensor:
    return torch.cat([t, t[-1:]]) if t.dim() else t


def _flatter(draw: Draw, t: Tensor) -> Tensor:
    return t.flatten() if draw.chance(0.5) else t.reshape(-1)[:1].reshape(()) if t.numel() else t


def _deeper(draw: Draw, t: Tensor) -> Tensor:
    return t.unsqueeze(draw.random.randrange(t.dim() + 1))


SHAPES = (_zero_size, _one, _longer, _flatter, _deeper)


def _sparse(draw: Draw, t: Tensor) -> Tensor:
    return t.to_sparse_csr() if t.dim() == 2 and draw.chance(0.5) else t.to_sparse()


def _quantised(draw: Draw, t: Tensor) -> Tensor:
    return torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8)


def _nested(draw: Draw, t: Tensor) -> Tensor:
    return torch.nested.nested_tensor([t]) if t.dim() else t


def _on_meta(draw: Draw, t: Tensor) -> Tensor:
    return t.to("meta")


def _retyped(draw: Draw, t: Tensor) -> Tensor:
    return t.to(draw.pick(*DTYPES))


KINDS = (
    *[_retyped] * 4,
    *(_sparse, _quantised, _nested, _on_meta),
    lambda draw, t: t.to_mkldnn() if t.dtype == torch.float32 else t,
    lambda draw, t: t.tolist(),
    lambda draw, t: t.detach().float().numpy(),
    lambda draw, t: draw.pick(*OBJECTS),
    lambda draw, t: [t],
)
# Another type of object that holds the same values.
WRAPPERS = (lambda draw, t: t.as_subclass(Labelled), lambda draw, t: nn.Parameter(t, requires_grad=False))
FAMILIES = {"layout": LAYOUTS, "values": VALUES, "shape": SHAPES, "kind": KINDS, "wrapper": WRAPPERS}


def _on_tensor(draw: Draw, arguments: Arguments, changes: tuple[Callable[..., Any], ...]) -> str:
    """Change one tensor; what was done, in words."""
    places = [(name, None) for name, value in arguments.items() if isinstance(value, Tensor)]
    lists = {name: value for name, value in arguments.items() if isinstance(value, list)}
    places += [(name, i) for name, value in lists.items() for i, t in enumerate(value) if isinstance(t, Tensor)]
    if not places:
        return ""
    name, place = draw.pick(*places)
    before = arguments[name] if place is None else arguments[name][place]
    change = draw.pick(*changes)
    try:
        after = change(draw, before)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
        return ""  # PyTorch itself has no such tensor
    if place is None:
        arguments[name] = after
    else:
        arguments[name] = [after if i == place else t for i, t in enumerate(arguments[name])]
    return f"{name}{'' if place is None else place}:{getattr(change, '__name__', 'object')}"


def _on_scalar(draw: Draw, arguments: Arguments) -> str:
    names = [name for name, value in arguments.items() if not isinstance(value, Tensor)]
    if not names:
        return ""
    name = draw.pick(*names)
    arguments[name] = draw.pick(*SCALARS, *OBJECTS)
    return f"{name}={arguments[name]!r:.40}"


def _on_aliases(draw: Draw, arguments: Arguments) -> str:
    names = [name for name, value in arguments.items() if isinstance(value, Tensor) and not value.is_nested]
    if len(names) < 2:
        return ""
    a, b = draw.random.sample(names, 2)
    alike = [name for name in names if name != a and arguments[name].shape == arguments[a].shape]
    b = draw.pick(*alike) if alike else b
    arguments[b] = arguments[a]
    return f"{b} is {a}"


def spoil(draw: Draw, arguments: Arguments) -> tuple[Arguments, list[str]]:
    """Arguments with up to three changes, and what they are."""
    arguments, told = dict(arguments), []
    for _ in range(draw.pick(0, 1, 1, 1, 2, 2, 3)):
        family = draw.pick(
            *["layout"] * 4, *["values"] * 4, *["shape"] * 2, *["kind"] * 2, "wrapper", "scalar", "alias"
        )
        if family == "scalar":
            told.append(_on_scalar(draw, arguments))
        elif family == "alias":
            told.append(_on_aliases(draw, arguments))
        else:
            told.append(_on_tensor(draw, arguments, FAMILIES[family]))
    return arguments, [words for words in told if words]
