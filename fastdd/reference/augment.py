"""Differentiable Siamese augmentation from parameter rows, in plain PyTorch: ground truth, fallback and baseline."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastdd.reference.contents import picked, readable


def _taps(matrix: Tensor, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The four source pixels that every result pixel is interpolated from: index in the plane and weight, [N, H W].

    ``matrix`` [N, 6] times (x, y, 1) is where result pixel (x, y) samples; a tap outside has weight zero.
    """
    ys, xs = torch.meshgrid(
        torch.arange(height, dtype=matrix.dtype, device=matrix.device),
        torch.arange(width, dtype=matrix.dtype, device=matrix.device),
        indexing="ij",
    )
    a, b, c, d, e, f = (column[:, None, None] for column in matrix.unbind(1))
    sx, sy = a * xs + b * ys + c, d * xs + e * ys + f  # [N, H, W]
    x0, y0 = sx.floor(), sy.floor()
    for column, wx in ((x0, 1 - (sx - x0)), (x0 + 1, sx - x0)):
        for row, wy in ((y0, 1 - (sy - y0)), (y0 + 1, sy - y0)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            # Of NaN, which a clamp keeps, an integer may be anything.
            index = (row.nan_to_num().clamp(0, height - 1) * width + column.nan_to_num().clamp(0, width - 1)).long()
            yield index.flatten(1), torch.where(inside, wx * wy, 0).flatten(1)


def _warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear samples of x [N, C, H, W], zeros outside: a pixel of weight 0 is not there, even if it is NaN."""
    pixels, total = x.flatten(2), torch.zeros_like(x).flatten(2)
    for index, weight in _taps(matrix, *x.shape[2:]):
        taken = pixels.gather(2, index[:, None].expand_as(pixels))
        total = total + torch.where(weight[:, None] == 0, 0, weight[:, None] * taken)
    return total.view_as(x)


def _warp_adjoint(g: Tensor, matrix: Tensor) -> Tensor:
    """Transpose of :func:`_warp`: every result pixel adds to the four that it was interpolated from."""
    pixels, total = g.flatten(2), torch.zeros_like(g).flatten(2)
    for index, weight in _taps(matrix, *g.shape[2:]):
        values = torch.where(weight[:, None] == 0, 0, weight[:, None] * pixels)
        index = index[:, None].expand_as(pixels)
        if g.is_cuda:
            # There scatter_add adds in any order, and index_put sorts first; on the CPU it is the other way round.
            where = [torch.arange(size, device=g.device) for size in pixels.shape[:2]]
            total = total.index_put((where[0][:, None, None], where[1][:, None], index), values, accumulate=True)
        else:
            total = total.scatter_add(2, index, values)
    return total.view_as(g)


def _columns(params: Tensor, rows: Tensor | None, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Of every image: matrix [N, 6]; brightness, saturation and contrast [N, 1, 1, 1]; what is cut out [N, 1, H, W]."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    p = (params.expand(x.shape[0], -1) if rows is None else picked("rows", params, rows)).to(dtype)[
        :, :, None, None, None
    ]
    y = torch.arange(x.shape[2], device=x.device)[:, None]
    x = torch.arange(x.shape[3], device=x.device)
    top, left, bottom, right = p[:, 9:13].unbind(1)
    return p[:, :6, 0, 0, 0], list(p[:, 6:9].unbind(1)), (y >= top) & (y < bottom) & (x >= left) & (x < right)


def _told(y: Tensor, matrix: Tensor) -> Tensor:
    """The images; NaN for one whose row, which could not be read, does not exist or is not finite."""
    return y if readable(matrix) else torch.where(matrix.isfinite().all(1)[:, None, None, None], y, torch.nan)


def _saturate(y: Tensor, factor: Tensor) -> Tensor:
    if y.shape[1] == 1:
        return y
    mean = y.mean(1, keepdim=True)
    return torch.where(factor == 1, y, (y - mean) * factor + mean)


def _contrast(y: Tensor, factor: Tensor) -> Tensor:
    mean = y.mean((1, 2, 3), keepdim=True)
    return torch.where(factor == 1, y, (y - mean) * factor + mean)


def augment(x: Tensor, params: Tensor, rows: Tensor | None = None, linear: bool = False) -> Tensor:
    """Warp, brightness, saturation, contrast, cutout; see fastdd.ops.augment. ``linear`` leaves brightness out."""
    matrix, (brightness, saturation, contrast), cut = _columns(params, rows, x)
    # Contiguous: the memory format must not decide in which order the means are summed.
    y = _warp(x.to(matrix.dtype).contiguous(), matrix)
    if not linear:
        y = y + brightness
    return _told(torch.where(cut, 0, _contrast(_saturate(y, saturation), contrast)), matrix).to(x.dtype)


def augment_adjoint(g: Tensor, params: Tensor, rows: Tensor | None = None) -> Tensor:
    """Transpose of ``augment(., linear=True)``: the steps, each symmetric but the warp, in reverse order."""
    matrix, (_, saturation, contrast), cut = _columns(params, rows, g)
    y = torch.where(cut, 0, g.to(matrix.dtype).contiguous())
    return _told(_warp_adjoint(_saturate(_contrast(y, contrast), saturation), matrix), matrix).to(g.dtype)


def augment_uint8(
    x: Tensor, params: Tensor, rows: Tensor | None, mean: Tensor, std: Tensor, dtype: torch.dtype
) -> Tensor:
    """:func:`augment` of ``(x / 255 - mean) / std``, for uint8 x."""
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    mean, std = (t.to(torch.float32).to(compute)[:, None, None] for t in (mean, std))
    return augment((x.to(compute) / 255 - mean) / std, params, rows).to(dtype)
