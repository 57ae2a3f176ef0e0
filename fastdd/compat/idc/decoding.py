"""Multi-formation: images that hold several each, decoded."""

import math
from typing import Any

import torch
from torch import Tensor

from fastdd import ops

__all__ = ["decode", "decode_fn", "decode_zoom", "decode_zoom_multi"]


def enlarged(img: Tensor, factor: int, size: int | tuple[int, int]) -> Tensor:
    """factor x factor parts of every image, enlarged to ``size``, [factor^2 N, C, H, W]: first all upper left ones.

    The parts' side is that of the columns, as in the published code: rows below the last part are left out.
    """
    height, width = img.shape[2:]
    side = math.ceil(width / factor)
    if height < width:
        raise ValueError(
            f"images of {height} rows can't be decoded into parts of {side} by {side}: they must be square"
        )
    return ops.formation(img[:, :, : side * factor], factor, size=size)


def decode_zoom(img: Tensor, target: Tensor, factor: int, size: int | tuple[int, int] = -1) -> tuple[Tensor, Tensor]:
    """factor^2 images from each: its parts, enlarged (bilinear) to ``size`` (-1: the images' own)."""
    size = img.shape[-1] if size == -1 else size
    return enlarged(img, factor, size), target.repeat(factor**2)


def decode_zoom_multi(img: Tensor, target: Tensor, factor_max: int) -> tuple[Tensor, Tensor]:
    """:func:`decode_zoom` by 1, 2, ..., ``factor_max``, together."""
    decoded = [decode_zoom(img, target, factor) for factor in range(1, factor_max + 1)]
    return tuple(torch.cat(parts) for parts in zip(*decoded, strict=True))


def decode_fn(data: Tensor, target: Tensor, factor: int, decode_type: str, bound: int = 128) -> tuple[Tensor, Tensor]:
    """:func:`decode_zoom_multi` for ``multi``, otherwise :func:`decode_zoom`; ``bound`` is unused."""
    if factor > 1:
        return (decode_zoom_multi if decode_type == "multi" else decode_zoom)(data, target, factor)
    return data, target


def decode(args: Any, data: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """A synthetic set, sorted by class, decoded class by class; reads ``args.nclass``, ``args.factor`` and
    ``args.decode_type``."""
    ipc = len(data) // args.nclass
    decoded = [
        decode_fn(data[i : i + ipc].detach(), target[i : i + ipc].detach(), args.factor, args.decode_type)
        for i in range(0, ipc * args.nclass, ipc)
    ]
    return tuple(torch.cat(parts) for parts in zip(*decoded, strict=True))
