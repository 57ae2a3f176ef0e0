"""What ops index with: read and refused where a look is cheap, never trusted where it is not."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor


def readable(t: Tensor) -> bool:
    """Whether a look at the contents is cheap and possible: on a GPU it would wait for all the work before it."""
    return (
        t.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not isinstance(t, FakeTensor | FunctionalTensor)
        and not torch._C._functorch.is_functorch_wrapped_tensor(t)
    )


def values_of(t: Tensor) -> np.ndarray:
    """The contents of a readable tensor; also under transforms of torch.func, whose views have no memory to look at."""
    return np.array(t.tolist()) if torch._C._are_functorch_transforms_active() else t.detach().resolve_neg().numpy()


def offsets_rise(offsets: Tensor, n: int) -> Tensor:
    """Whether offsets rise from 0 to n, as a bool tensor []: nothing waits for the device."""
    return (offsets[0] == 0) & (offsets[-1] == n) & (offsets.diff() >= 0).all()


def check_ends(ends: list[int], n: int) -> None:
    """Raises ValueError for ends of segments that do not rise from 0 to n."""
    if not ends or ends[0] != 0 or ends[-1] != n or any(b < a for a, b in pairwise(ends)):
        shown = ", ".join(map(str, ends[:8])) + (f", ... {ends[-1]}" if len(ends) > 8 else "")
        raise ValueError(f"offsets must rise from 0 to the number of rows, {n}; got [{shown}]")


def check_offsets(offsets: Tensor, n: int) -> None:
    """Raises ValueError for offsets, int64 [S+1], that do not rise from 0 to n; contents are read on CPUs only."""
    if offsets.dtype != torch.int64 or offsets.dim() != 1 or offsets.shape[0] < 1:
        raise ValueError(f"offsets must be int64 [S+1], not {offsets.dtype} {list(offsets.shape)}")
    if readable(offsets):
        values = values_of(offsets)
        if values[0] != 0 or values[-1] != n or (values[1:] < values[:-1]).any():
            check_ends(values.tolist(), n)


def ends_of(offsets: Tensor, n: int) -> list[int]:
    """The offsets on the host, for code that needs them there; ValueError unless they rise from 0 to n."""
    ends = offsets.tolist()
    check_ends(ends, n)
    return ends


def check_range(what: str, index: Tensor, low: int, count: int) -> None:
    """Raises ValueError for values that are not from ``low`` to ``count - 1``; contents are read on CPUs only."""
    if index.numel() and readable(index):
        least, most = (value.item() for value in index.aminmax())
        if least < low or most >= count:
            raise ValueError(f"{what} must be from {low} to {count - 1}; got {least if least < low else most}")


def picked(what: str, t: Tensor, index: Tensor) -> Tensor:
    """``t[index]`` by rows; a row that does not exist is refused where the index can be read, else it is NaN."""
    if readable(index):
        check_range(what, index, 0, t.shape[0])
        return t[index]
    inside = (index >= 0) & (index < t.shape[0])
    if t.shape[0] == 0:
        return t.new_full((index.shape[0], *t.shape[1:]), torch.nan)
    return torch.where(inside.view(-1, *[1] * (t.dim() - 1)), t[index.clamp(0, t.shape[0] - 1)], torch.nan)
