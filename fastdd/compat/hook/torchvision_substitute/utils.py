"""Grids of images, and their files: the pixels that torchvision's functions give."""

import math
from collections.abc import Sequence
from typing import Any, BinaryIO

import torch
from PIL import Image
from torch import Tensor


def _stretched(images: Tensor, value_range: tuple[float, float] | None) -> Tensor:
    low, high = (float(images.min()), float(images.max())) if value_range is None else value_range
    return images.clamp(low, high).sub_(low).div_(max(high - low, 1e-5))


@torch.no_grad()
def make_grid(
    tensor: Tensor | Sequence[Tensor],
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    value_range: tuple[float, float] | None = None,
    scale_each: bool = False,
    pad_value: float = 0.0,
) -> Tensor:
    """Images [N, C, H, W] (or one, or a list) as one image of rows of ``nrow``; gray ones get three channels.

    ``normalize`` stretches ``value_range`` (default: the values there are; with ``scale_each``, in each image) to 0..1.
    """
    images = tensor if isinstance(tensor, Tensor) else torch.stack(list(tensor))
    if images.ndim not in (2, 3, 4):
        raise ValueError(f"make_grid needs images of 2 to 4 dimensions, not of shape {list(images.shape)}")
    if images.ndim == 2:
        images = images[None]
    if images.ndim == 3:
        images = images[None]
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if normalize and scale_each:
        images = torch.stack([_stretched(image, value_range) for image in images])
    elif normalize:
        images = _stretched(images, value_range)
    count, channels, height, width = images.shape
    if count == 1:
        return images[0].clone()
    columns = min(nrow, count)
    rows = math.ceil(count / columns)
    cells = images.new_full((rows * columns, channels, height + padding, width + padding), pad_value)
    cells[:count, :, padding:, padding:] = images
    cells = cells.view(rows, columns, *cells.shape[1:]).permute(2, 0, 3, 1, 4)
    grid = images.new_full(
        (channels, rows * (height + padding) + padding, columns * (width + padding) + padding), pad_value
    )
    inside = (channels, rows * (height + padding), columns * (width + padding))
    grid[:, : inside[1], : inside[2]] = cells.reshape(inside)
    return grid


@torch.no_grad()
def save_image(
    tensor: Tensor | Sequence[Tensor], fp: str | BinaryIO, format: str | None = None, **options: Any
) -> None:
    """Write :func:`make_grid` of the images, 0..1, to a file."""
    grid = make_grid(tensor, **options)
    pixels = grid.mul(255).add_(0.5).clamp_(0, 255).permute(1, 2, 0).to("cpu", torch.uint8)
    Image.fromarray(pixels.numpy()).save(fp, format=format)
