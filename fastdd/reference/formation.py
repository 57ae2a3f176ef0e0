"""IDC's multi-formation in plain PyTorch: ground truth, fallback and baseline."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.reference.contents import check_range, picked, readable


def sides(height: int, width: int, factor: int) -> tuple[int, int]:
    """Rows and columns of a part: what does not divide is rounded up, and padded.

    >>> sides(28, 28, 3)
    (10, 10)
    """
    return -(-height // factor), -(-width // factor)


def tiles(stored: Tensor, factor: int, fill: Tensor | None = None) -> Tensor:
    """The parts of images, [factor^2 M, C, h, w]: the upper left one of every image, then the next of every image.

    Args:
        stored: [M, C, H, W].
        factor: f; parts go from left to right and from top to bottom.
        fill: [C], what is below and to the right of images whose sides f does not divide; None: zeros.
    """
    n, channels, height, width = stored.shape
    h, w = sides(height, width, factor)
    below, right = h * factor - height, w * factor - width
    if below or right:
        inside = (torch.arange(h * factor) < height)[:, None] & (torch.arange(w * factor) < width)
        stored = F.pad(stored, (0, right, 0, below))
        if fill is not None:
            stored = torch.where(inside.to(stored.device), stored, fill.to(stored.dtype)[:, None, None])
    parts = stored.reshape(n, channels, factor, h, factor, w)
    return parts.permute(2, 4, 0, 1, 3, 5).reshape(-1, channels, h, w)


def _numbers(parts: Tensor, stored: int, factor: int) -> Tensor:
    """Of addresses [N, 2], the row of :func:`tiles`; what does not exist is refused, or -1 where it can't be read."""
    image, part = parts.unbind(1)
    check_range("stored images of parts", image, 0, stored)
    check_range("parts of an image", part, 0, factor**2)
    exists = (image >= 0) & (image < stored) & (part >= 0) & (part < factor**2)
    return torch.where(exists, part * stored + image, -1)


def formation(
    stored: Tensor, factor: int, parts: Tensor | None = None, fill: Tensor | None = None, size: list[int] | None = None
) -> Tensor:
    """The images that stored ones are decoded into; see fastdd.ops.formation."""
    compute = torch.float64 if stored.dtype == torch.float64 else torch.float32
    seen = tiles(stored.to(compute), factor, fill)
    if parts is not None:
        seen = picked("parts", seen, _numbers(parts, len(stored), factor))
    size = list(stored.shape[2:]) if size is None else size
    if 0 in seen.shape:  # which interpolation refuses
        return seen[:, :, :1, :1].expand(-1, -1, *size).to(stored.dtype)
    return F.interpolate(seen, size=size, mode="bilinear", align_corners=False).to(stored.dtype)


def _interpolation(side: int, size: int, like: Tensor) -> Tensor:
    """The matrix [size, side] that enlarges a side, linearly."""
    eye = torch.eye(side, dtype=like.dtype, device=like.device)
    return F.interpolate(eye[None], size=size, mode="linear", align_corners=False)[0].T


def formation_adjoint(g: Tensor, n: int, height: int, width: int, factor: int, parts: Tensor | None = None) -> Tensor:
    """Transpose of :func:`formation` without its padding: [N, C, H', W'] to [n, C, height, width]."""
    compute = torch.float64 if g.dtype == torch.float64 else torch.float32
    channels, (h, w) = g.shape[1], sides(height, width, factor)
    g, dtype = g.to(compute), g.dtype
    of_parts = _interpolation(h, g.shape[2], g).T @ g @ _interpolation(w, g.shape[3], g)
    if parts is not None:
        numbers = _numbers(parts, n, factor)
        if not readable(parts):
            of_parts = torch.where((numbers >= 0).view(-1, 1, 1, 1), of_parts, torch.nan)
            numbers = numbers.clamp(min=0)
        # Not index_add, which on a GPU adds in any order.
        total = of_parts.new_zeros(factor**2 * n, channels, h, w)
        of_parts = total.index_put((numbers,), of_parts, accumulate=True) if n else total
    whole = of_parts.view(factor, factor, n, channels, h, w).permute(2, 3, 0, 4, 1, 5)
    whole = whole.reshape(n, channels, factor * h, factor * w)
    return whole[:, :, :height, :width].contiguous().to(dtype)
