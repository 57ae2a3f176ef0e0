"""Differentiable Siamese augmentation from parameter rows, in plain PyTorch: ground truth, fallback and baseline."""

import torch
from torch import Tensor


def _rows(params: Tensor, rows: Tensor | None, n: int, dtype: torch.dtype) -> Tensor:
    chosen = params.expand(n, -1) if rows is None else params[rows]
    return chosen.to(dtype)


def _warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear samples of x [N, C, H, W] at ``matrix`` [N, 6] times (x, y, 1), zeros outside."""
    _, channels, height, width = x.shape
    ys, xs = torch.meshgrid(
        torch.arange(height, dtype=x.dtype, device=x.device),
        torch.arange(width, dtype=x.dtype, device=x.device),
        indexing="ij",
    )
    a, b, c, d, e, f = (column[:, None, None] for column in matrix.unbind(1))
    sx, sy = a * xs + b * ys + c, d * xs + e * ys + f  # [N, H, W]
    x0, y0 = sx.floor(), sy.floor()
    pixels = x.flatten(2)
    total = torch.zeros_like(x)
    for column, wx in ((x0, 1 - (sx - x0)), (x0 + 1, sx - x0)):
        for row, wy in ((y0, 1 - (sy - y0)), (y0 + 1, sy - y0)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            tap = pixels.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1)).view_as(x)
            total = total + torch.where(inside, wx * wy, 0)[:, None] * tap
    return total


def augment(x: Tensor, params: Tensor, rows: Tensor | None = None, linear: bool = False) -> Tensor:
    """Warp, brightness, saturation, contrast, cutout; see fastdd.ops.augment. ``linear`` leaves brightness out."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    n, channels, height, width = x.shape
    p = _rows(params, rows, n, dtype)
    brightness, saturation, contrast = (column[:, None, None, None] for column in p[:, 6:9].unbind(1))
    top, left, bottom, right = (column[:, None, None] for column in p[:, 9:13].unbind(1))
    y = _warp(x.to(dtype), p[:, :6])
    if not linear:
        y = y + brightness
    if channels > 1:
        mean = y.mean(1, keepdim=True)
        y = torch.where(saturation == 1, y, (y - mean) * saturation + mean)
    mean = y.mean((1, 2, 3), keepdim=True)
    y = torch.where(contrast == 1, y, (y - mean) * contrast + mean)
    line = torch.arange(height, device=x.device)[:, None]
    place = torch.arange(width, device=x.device)
    cut = (line >= top) & (line < bottom) & (place >= left) & (place < right)
    return torch.where(cut[:, None], 0, y).to(x.dtype)


def augment_adjoint(g: Tensor, params: Tensor, rows: Tensor | None = None) -> Tensor:
    """Transpose of ``augment(., linear=True)``, by differentiating it."""
    with torch.enable_grad():
        x = torch.zeros_like(g, requires_grad=True, memory_format=torch.contiguous_format)
        y = augment(x, params.detach(), rows, linear=True)
    return torch.autograd.grad(y, x, g.detach())[0]


def augment_uint8(
    x: Tensor, params: Tensor, rows: Tensor | None, mean: Tensor, std: Tensor, dtype: torch.dtype
) -> Tensor:
    """:func:`augment` of ``(x / 255 - mean) / std``, for uint8 x."""
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    mean, std = (t.to(torch.float32).to(compute)[:, None, None] for t in (mean, std))
    return augment((x.to(compute) / 255 - mean) / std, params, rows).to(dtype)
