"""Triton kernels of norm_act_pool, its backward and its double backward, with the formulas of
fastdd/reference/norm_act_pool.py. Their tests pass on an H200.

A program has one image and a block of channels, and reads it as 2x2 windows: a tuple of tiles [WINDOWS, CHANNELS], one
for each pixel of a window in reading order, so that pooling stays within a thread. Windows at an odd edge stick out:
their pixels count in the sums, but they have no output. The image passes by twice, for the sums and for the rest: the
second time from cache or, WHOLE, from registers.
"""

import contextlib

import torch
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.norm_act_pool.backward import norm_act_pool_gradient, norm_act_pool_second, norm_act_pool_sums
from fastdd.kernels.norm_act_pool.forward import norm_act_pool_forward

# Images of up to so many windows have rows of the table of their own; one more row is for larger ones.
_SIZES = (16, 64, 256)


def _on(device: torch.device):
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _accumulator(dtype: torch.dtype) -> tuple[torch.dtype, tl.dtype]:
    return (torch.float64, tl.float64) if dtype == torch.float64 else (torch.float32, tl.float32)


def row(kernel: str, x: Tensor, pool: str) -> str:
    """Name of the row of the table for images x [N, H, W, C].

    Where a kernel loops, larger images have more warps each, so that fewer are under way: when they pass by again, they
    are to be in the cache still.

    >>> [row("forward", torch.empty(1, size, size, 128), "avg") for size in (28, 64)]
    ['norm_act_pool_forward_whole_256', 'norm_act_pool_forward_large']
    >>> row("gradient", torch.empty(1, 28, 28, 128), "avg")
    'norm_act_pool_gradient_256'
    """
    windows = -(-x.shape[1] // 2) * -(-x.shape[2] // 2)
    sizes = [size for size in _SIZES if windows <= size]
    double = x.dtype == torch.float64
    # float64, an output for every pixel, and all that the backward passes read are too much for registers.
    if kernel == "forward" and sizes and not double and pool != "none":
        return f"norm_act_pool_{kernel}_whole_{sizes[0]}"
    return f"norm_act_pool_{kernel}_{64 if 64 in sizes or double else 256 if sizes else 'large'}"


def _launch(kernel, name: str, pool: str, x: Tensor, *arguments, **constants) -> None:
    """One program per image and block of channels; an empty x needs none."""
    options = config(row(name, x, pool), x.device)
    _, acc = _accumulator(x.dtype)
    programs = x.shape[0] * -(-x.shape[3] // options["CHANNELS"])
    if programs:
        with _on(x.device):
            kernel[(programs,)](*arguments, ACC=acc, POOL=pool, **constants, **options)


def _sum(sums: Tensor) -> list[Tensor]:
    """Over images: [K, N, C] -> K times [C]."""
    parts, images, channels = sums.shape
    out = [sums.new_empty(channels) for _ in range(parts)]
    options = config("norm_act_pool_sums", sums.device)
    _, acc = _accumulator(sums.dtype)
    if channels:
        with _on(sums.device):
            grid = -(-channels // options["CHANNELS"]), parts
            norm_act_pool_sums[grid](sums, out[0], out[-1], images, channels, acc, **options)
    return out


def _outputs(x: Tensor, pool: str) -> tuple[int, int]:
    _, height, width, _ = x.shape
    return (height, width) if pool == "none" else (height // 2, width // 2)


def norm_act_pool(x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: str) -> tuple[Tensor, Tensor]:
    """Launches for the forward pass of :func:`fastdd.ops.norm_act_pool.norm_act_pool`: one."""
    x = x.contiguous()
    n, h, w, c = x.shape
    rows, columns = _outputs(x, pool)
    y = x.new_empty((n, rows, columns, c))
    dtype, _ = _accumulator(x.dtype)
    stats = x.new_empty((n, 2, c), dtype=dtype)
    arguments = x, weight.contiguous(), bias.contiguous(), y, stats, h, w, c, rows * columns, eps
    _launch(norm_act_pool_forward, "forward", pool, x, *arguments)
    return y, stats


def norm_act_pool_backward(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, pool: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Launches for dx, dw and db: two."""
    g, x, weight, bias, stats = (t.contiguous() for t in (g, x, weight, bias, stats))
    n, h, w, c = x.shape
    rows, columns = _outputs(x, pool)
    dx, sums = torch.empty_like(x), stats.new_empty((2, n, c))
    arguments = g, x, weight, bias, stats, dx, sums, n, h, w, c, rows * columns
    _launch(norm_act_pool_gradient, "gradient", pool, x, *arguments, AFFINE=True)
    dw, db = _sum(sums)
    return dx, dw, db


def norm_act_pool_double_backward(
    u: Tensor,
    vw: Tensor,
    vb: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    stats: Tensor,
    pool: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launches for the gradients of ``<u, dx> + <vw, dw> + <vb, db>`` in g, x and weight: two."""
    inputs = [t.contiguous() for t in (u, vw, vb, g, x, weight, bias, stats)]
    g, x, stats = inputs[3], inputs[4], inputs[7]
    n, h, w, c = x.shape
    rows, columns = _outputs(x, pool)
    to_g, to_x, sums = torch.empty_like(g), torch.empty_like(x), stats.new_empty((1, n, c))
    arguments = *inputs, to_g, to_x, sums, h, w, c, rows * columns
    _launch(norm_act_pool_second, "second", pool, x, *arguments, AFFINE=True)
    return to_g, to_x, *_sum(sums)


def norm_act_pool_slope(g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, pool: str) -> Tensor:
    """Launches for dx alone: one."""
    g, x, weight, bias, stats = (t.contiguous() for t in (g, x, weight, bias, stats))
    n, h, w, c = x.shape
    rows, columns = _outputs(x, pool)
    dx = torch.empty_like(x)
    arguments = g, x, weight, bias, stats, dx, stats, n, h, w, c, rows * columns
    _launch(norm_act_pool_gradient, "gradient", pool, x, *arguments, AFFINE=False)
    return dx


def norm_act_pool_slope_backward(
    u: Tensor, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, pool: str
) -> tuple[Tensor, Tensor]:
    """Launches for the gradients of ``<u, dx>`` in g and x: one."""
    u, g, x, weight, bias, stats = (t.contiguous() for t in (u, g, x, weight, bias, stats))
    _, h, w, c = x.shape
    rows, columns = _outputs(x, pool)
    to_g, to_x = torch.empty_like(g), torch.empty_like(x)
    arguments = u, weight, bias, g, x, weight, bias, stats, to_g, to_x, stats, h, w, c, rows * columns
    _launch(norm_act_pool_second, "second", pool, x, *arguments, AFFINE=False)
    return to_g, to_x
