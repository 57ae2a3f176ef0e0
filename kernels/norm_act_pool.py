"""Triton kernels of norm_act_pool, its backward and its double backward, with the formulas of
fastdd/reference/norm_act_pool.py. Compiled and checked in the interpreter, not yet run on a GPU.

A program has one image and a block of channels, and reads it as 2x2 windows: tiles [4, WINDOWS, CHANNELS], whose first
dimension are the pixels of a window in reading order, all in one thread. Windows at an odd edge stick out: their
pixels count in the sums, but they have no output. The image passes by twice, for the sums and for the rest: the second
time from cache or, WHOLE, as a single tile in registers.

Offsets are 64-bit, also within an image (4096x4096 pixels of 128 channels are 2^31), except in a WHOLE one, to which
they would cost registers.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config

# Images of up to so many windows are WHOLE in the forward pass; the backward ones, with more to keep, have none.
_WHOLE = (16, 64, 256)


@triton.jit
def share_of_program(channels, CHANNELS: tl.constexpr):
    """Its image and channels, [1, 1, CHANNELS]; the blocks of an image follow each other."""
    blocks = tl.cdiv(channels, CHANNELS)
    i_n = (tl.program_id(0) // blocks).to(tl.int64)
    o_c = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)[None, None, :]
    # At most 4 to a thread, which keeps up to a dozen coefficients of each; 8, as bfloat16 loads would have it, spill.
    return i_n, tl.max_contiguous(o_c, (1, 1, 4))


@triton.jit
def places(start, height, width, channels, o_c, POOL: tl.constexpr, WINDOWS: tl.constexpr, INDEX: tl.constexpr):
    """Where the pixels of WINDOWS windows are in an image, and their outputs in its output; each with a mask.

    [4, WINDOWS, CHANNELS], but [1, WINDOWS, CHANNELS] for the outputs of pooling.
    """
    columns = (width + 1) // 2
    o_w = start + tl.arange(0, WINDOWS)[None, :, None]
    o_k = tl.arange(0, 4)[:, None, None]
    row = o_w // columns
    column = o_w % columns
    o_h = 2 * row + o_k // 2
    o_v = 2 * column + o_k % 2
    m_c = o_c < channels
    o_x = (o_h * width + o_v).to(INDEX) * channels + o_c
    m_x = (o_h < height) & (o_v < width) & m_c
    if POOL == "none":
        return o_x, m_x, o_x, m_x
    else:
        o_y = (row * (width // 2) + column).to(INDEX) * channels + o_c
        m_y = (row < height // 2) & (column < width // 2) & m_c
        return o_x, m_x, o_y, m_y


@triton.jit
def counts(start, height, width, WINDOWS: tl.constexpr):
    """How many pixels of each window are in the image, [1, WINDOWS, 1]."""
    columns = (width + 1) // 2
    o_w = start + tl.arange(0, WINDOWS)[None, :, None]
    below = tl.minimum(tl.maximum(height - o_w // columns * 2, 0), 2)
    return below * tl.minimum(width - o_w % columns * 2, 2)


@triton.jit
def divide(a, b):
    """Rounded to nearest, which `/` is not in float32."""
    if b.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def root(b):
    """Rounded to nearest, as `divide`."""
    if b.dtype == tl.float64:
        return tl.sqrt(b)
    else:
        return tl.sqrt_rn(b)


@triton.jit
def across(b_t):
    """Sums of [4 or 1, WINDOWS, CHANNELS] over all but the channels: [1, 1, CHANNELS]."""
    return tl.sum(tl.sum(b_t, axis=0, keep_dims=True), axis=1, keep_dims=True)


@triton.jit
def merge(b_n, b_mean, b_square, b_x, m_x, b_k):
    """Take one more tile into every lane's count, mean and sum of squared distances from it.

    From each window's own mean, and merged (Chan, Golub and LeVeque 1979): no difference of large squares.
    """
    b_own = tl.sum(b_x, axis=0, keep_dims=True) * divide(1.0, tl.maximum(b_k, 1.0))
    b_d = tl.where(m_x, b_x - b_own, 0.0)
    b_share = divide(b_k, tl.maximum(b_n + b_k, 1.0))
    b_delta = b_own - b_mean
    b_square += tl.sum(b_d * b_d, axis=0, keep_dims=True) + b_delta * b_delta * (b_n * b_share)
    return b_n + b_k, b_mean + b_delta * b_share, b_square


@triton.jit
def shares(b_z, POOL: tl.constexpr):
    """How much of its output's gradient each pixel of a window gets: G = g * share."""
    if POOL == "max":
        b_best = tl.max(b_z, axis=0, keep_dims=True)
        o_k = tl.arange(0, 4)[:, None, None]
        b_first = tl.min(tl.where(b_z == b_best, o_k, 4), axis=0, keep_dims=True)
        return tl.where((o_k == b_first) & (b_best > 0), 1.0, 0.0).to(b_z.dtype)
    elif POOL == "avg":
        return tl.where(b_z > 0, 0.25, 0.0).to(b_z.dtype)
    else:
        return tl.where(b_z > 0, 1.0, 0.0).to(b_z.dtype)


@triton.jit
def activations(b_d, b_scale, b_shift):
    """z, from d = x - mean; rounded alike in all kernels, which must agree on its sign."""
    return tl.fma(b_d, b_scale, b_shift)


@triton.jit
def pooled(b_d, b_scale, b_shift, POOL: tl.constexpr):
    b_z = activations(b_d, b_scale, b_shift)
    # Not max(z, 0), which may drop a NaN.
    b_a = tl.where(b_z <= 0, 0.0, b_z)
    if POOL == "max":
        return tl.max(b_a, axis=0, keep_dims=True)
    elif POOL == "avg":
        return tl.sum(b_a, axis=0, keep_dims=True) * 0.25
    else:
        return b_a


@triton.jit
def norm_act_pool_forward(
    x,
    weight,
    bias,
    y,
    stats,
    height,
    width,
    channels,
    n_outputs,
    EPS: tl.constexpr,
    ACC: tl.constexpr,
    POOL: tl.constexpr,
    WHOLE: tl.constexpr,
    WINDOWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    i_n, o_c = share_of_program(channels, CHANNELS)
    m_c = o_c < channels
    x += i_n * height * width * channels
    y += i_n * n_outputs * channels
    stats += i_n * 2 * channels
    windows = ((height + 1) // 2) * ((width + 1) // 2)
    b_pixels = tl.zeros((1, 1, CHANNELS), dtype=ACC) + height * width
    if WHOLE:
        o_x, m_x, o_y, m_y = places(0, height, width, channels, o_c, POOL, WINDOWS, tl.int32)
        b_x = tl.load(x + o_x, mask=m_x, other=0.0).to(ACC)
        b_m = divide(across(b_x), b_pixels)
        b_d = tl.where(m_x, b_x - b_m, 0.0)
        b_squares = across(b_d * b_d)
    else:
        b_n = tl.zeros((1, WINDOWS, 1), dtype=ACC)
        b_mean = tl.zeros((1, WINDOWS, CHANNELS), dtype=ACC)
        b_square = tl.zeros((1, WINDOWS, CHANNELS), dtype=ACC)
        for start in range(0, windows, WINDOWS):
            o_x, m_x, o_y, m_y = places(start, height, width, channels, o_c, POOL, WINDOWS, tl.int64)
            b_x = tl.load(x + o_x, mask=m_x, other=0.0).to(ACC)
            b_k = counts(start, height, width, WINDOWS).to(ACC)
            b_n, b_mean, b_square = merge(b_n, b_mean, b_square, b_x, m_x, b_k)
        b_m = divide(across(b_n * b_mean), b_pixels)
        b_squares = across(b_square + b_n * (b_mean - b_m) * (b_mean - b_m))
    b_r = divide(1.0, root(divide(b_squares, b_pixels) + tl.full((1, 1, CHANNELS), EPS, dtype=ACC)))
    tl.store(stats + o_c, b_m, mask=m_c)
    tl.store(stats + channels + o_c, b_r, mask=m_c)
    b_scale = tl.load(weight + o_c, mask=m_c, other=0.0).to(ACC) * b_r
    b_shift = tl.load(bias + o_c, mask=m_c, other=0.0).to(ACC)
    if WHOLE:
        tl.store(y + o_y, pooled(b_d, b_scale, b_shift, POOL), mask=m_y)
    else:
        for start in range(0, windows, WINDOWS):
            o_x, m_x, o_y, m_y = places(start, height, width, channels, o_c, POOL, WINDOWS, tl.int64)
            b_x = tl.load(x + o_x, mask=m_x, other=0.0).to(ACC)
            tl.store(y + o_y, pooled(b_x - b_m, b_scale, b_shift, POOL), mask=m_y)


@triton.jit
def normalisation(weight, bias, stats, channels, o_c, m_c, ACC: tl.constexpr):
    """Mean, rstd, and scale and shift of z = scale (x - mean) + shift; [1, 1, CHANNELS] each."""
    b_m = tl.load(stats + o_c, mask=m_c, other=0.0)
    b_r = tl.load(stats + channels + o_c, mask=m_c, other=0.0)
    b_scale = tl.load(weight + o_c, mask=m_c, other=0.0).to(ACC) * b_r
    return b_m, b_r, b_scale, tl.load(bias + o_c, mask=m_c, other=0.0).to(ACC)


@triton.jit
def gathered(b_g, b_t, POOL: tl.constexpr):
    """Sums of g t over the pixels of every window; g is the window's own, unless POOL is none."""
    if POOL == "none":
        return tl.sum(b_g * b_t, axis=0, keep_dims=True)
    else:
        return b_g * tl.sum(b_t, axis=0, keep_dims=True)


@triton.jit
def norm_act_pool_gradient(
    g,
    x,
    weight,
    bias,
    stats,
    dx,
    sums,
    n_images,
    height,
    width,
    channels,
    n_outputs,
    ACC: tl.constexpr,
    POOL: tl.constexpr,
    WINDOWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    i_n, o_c = share_of_program(channels, CHANNELS)
    m_c = o_c < channels
    x += i_n * height * width * channels
    dx += i_n * height * width * channels
    g += i_n * n_outputs * channels
    stats += i_n * 2 * channels
    windows = ((height + 1) // 2) * ((width + 1) // 2)
    b_m, b_r, b_scale, b_shift = normalisation(weight, bias, stats, channels, o_c, m_c, ACC)
    b_sum = tl.zeros((1, WINDOWS, CHANNELS), dtype=ACC)
    b_sum_x = tl.zeros((1, WINDOWS, CHANNELS), dtype=ACC)
    for start in range(0, windows, WINDOWS):
        o_x, m_x, o_y, m_y = places(start, height, width, channels, o_c, POOL, WINDOWS, tl.int64)
        b_d = tl.load(x + o_x, mask=m_x, other=0.0).to(ACC) - b_m
        b_g = tl.load(g + o_y, mask=m_y, other=0.0).to(ACC)
        b_share = shares(activations(b_d, b_scale, b_shift), POOL)
        b_sum += gathered(b_g, b_share, POOL)
        b_sum_x += gathered(b_g, b_share * b_d, POOL)
    b_db = across(b_sum)
    b_dw = across(b_sum_x) * b_r
    tl.store(sums + i_n * channels + o_c, b_dw, mask=m_c)
    tl.store(sums + (n_images + i_n) * channels + o_c, b_db, mask=m_c)
    # dx = scale G + slope (x - mean) + level
    b_each = divide(b_scale, tl.zeros((1, 1, CHANNELS), dtype=ACC) + height * width)
    b_slope = -b_each * b_r * b_dw
    b_level = -b_each * b_db
    for start in range(0, windows, WINDOWS):
        o_x, m_x, o_y, m_y = places(start, height, width, channels, o_c, POOL, WINDOWS, tl.int64)
        b_d = tl.load(x + o_x, mask=m_x, other=0.0).to(ACC) - b_m
        b_g = tl.load(g + o_y, mask=m_y, other=0.0).to(ACC)
        b_share = shares(activations(b_d, b_scale, b_shift), POOL)
        tl.store(dx + o_x, b_scale * (b_g * b_share) + (b_slope * b_d + b_level), mask=m_x)


@triton.jit
def norm_act_pool_second(
    u,
    vw,
    vb,
    g,
    x,
    weight,
    bias,
    stats,
    to_g,
    to_x,
    sums,
    height,
    width,
    channels,
    n_outputs,
    ACC: tl.constexpr,
    POOL: tl.constexpr,
    WINDOWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    i_n, o_c = share_of_program(channels, CHANNELS)
    m_c = o_c < channels
    u += i_n * height * width * channels
    x += i_n * height * width * channels
    to_x += i_n * height * width * channels
    g += i_n * n_outputs * channels
    to_g += i_n * n_outputs * channels
    stats += i_n * 2 * channels
    windows = ((height + 1) // 2) * ((width + 1) // 2)
    b_m, b_r, b_scale, b_shift = normalisation(weight, bias, stats, channels, o_c, m_c, ACC)
    b_sum_u = tl.zeros((1, WINDOWS, CHANNELS), dtype=ACC)
    b_sum_ux = tl.zeros((1, WINDOWS, CHANNELS), dtype=ACC)
    b_sum_g = tl.zeros((1, WINDOWS, CHANNELS), dtype=ACC)
    b_sum_gx = tl.zeros((1, WINDOWS, CHANNELS), dtype=ACC)
    b_sum_gu = tl.zeros((1, WINDOWS, CHANNELS), dtype=ACC)
    for start in range(0, windows, WINDOWS):
        o_x, m_x, o_y, m_y = places(start, height, width, channels, o_c, POOL, WINDOWS, tl.int64)
        b_u = tl.load(u + o_x, mask=m_x, other=0.0).to(ACC)
        b_d = tl.load(x + o_x, mask=m_x, other=0.0).to(ACC) - b_m
        b_g = tl.load(g + o_y, mask=m_y, other=0.0).to(ACC)
        b_share = shares(activations(b_d, b_scale, b_shift), POOL)
        b_sum_u += tl.sum(b_u, axis=0, keep_dims=True)
        b_sum_ux += tl.sum(b_u * b_d, axis=0, keep_dims=True)
        b_sum_g += gathered(b_g, b_share, POOL)
        b_sum_gx += gathered(b_g, b_share * b_d, POOL)
        b_sum_gu += gathered(b_g, b_share * b_u, POOL)
    b_pixels = tl.zeros((1, 1, CHANNELS), dtype=ACC) + height * width
    b_u_mean = divide(across(b_sum_u), b_pixels)
    b_ux = divide(across(b_sum_ux), b_pixels) * b_r
    b_g_mean = divide(across(b_sum_g), b_pixels)
    b_gx = divide(across(b_sum_gx), b_pixels) * b_r
    b_t = divide(across(b_sum_gu), b_pixels) - b_u_mean * b_g_mean - b_ux * b_gx
    tl.store(sums + i_n * channels + o_c, b_r * b_pixels * b_t, mask=m_c)
    b_vw = tl.load(vw + o_c, mask=m_c, other=0.0).to(ACC)
    b_vb = tl.load(vb + o_c, mask=m_c, other=0.0).to(ACC)
    # to_x = x_g G + x_u u + x_x (x - mean) + x_0, and to_g gathers scale u + x_g (x - mean) + g_0
    b_e = b_vw - b_scale * b_ux
    b_x_g = b_r * b_e
    b_x_u = -b_r * b_scale * b_gx
    b_x_x = -b_r * b_r * ((b_e - b_scale * b_ux) * b_gx + b_scale * b_t)
    b_x_0 = -b_r * (b_e * b_g_mean - b_scale * b_u_mean * b_gx)
    b_g_0 = b_vb - b_scale * b_u_mean
    for start in range(0, windows, WINDOWS):
        o_x, m_x, o_y, m_y = places(start, height, width, channels, o_c, POOL, WINDOWS, tl.int64)
        b_u = tl.load(u + o_x, mask=m_x, other=0.0).to(ACC)
        b_d = tl.load(x + o_x, mask=m_x, other=0.0).to(ACC) - b_m
        b_g = tl.load(g + o_y, mask=m_y, other=0.0).to(ACC)
        b_share = shares(activations(b_d, b_scale, b_shift), POOL)
        b_back = b_share * (b_scale * b_u + b_x_g * b_d + b_g_0)
        if POOL != "none":
            b_back = tl.sum(b_back, axis=0, keep_dims=True)
        tl.store(to_g + o_y, b_back, mask=m_y)
        tl.store(to_x + o_x, b_x_g * (b_g * b_share) + b_x_u * b_u + b_x_x * b_d + b_x_0, mask=m_x)


@triton.jit
def norm_act_pool_sums(
    sums,
    first,
    second,
    n_images,
    channels,
    ACC: tl.constexpr,
    IMAGES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Over the images of sums [1 or 2, N, C], in a fixed order."""
    o_c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    m_c = o_c < channels
    i_k = tl.program_id(1).to(tl.int64)
    b_sum = tl.zeros((IMAGES, CHANNELS), dtype=ACC)
    for start in range(0, n_images, IMAGES):
        o_n = start + tl.arange(0, IMAGES)
        o_s = (i_k * n_images + o_n[:, None]) * channels + o_c[None, :]
        b_sum += tl.load(sums + o_s, mask=(o_n < n_images)[:, None] & m_c[None, :], other=0.0)
    b_out = tl.sum(b_sum, axis=0)
    if i_k == 0:
        tl.store(first + o_c, b_out, mask=m_c)
    else:
        tl.store(second + o_c, b_out, mask=m_c)


def _on(device: torch.device):
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _accumulator(dtype: torch.dtype) -> tuple[torch.dtype, tl.dtype]:
    return (torch.float64, tl.float64) if dtype == torch.float64 else (torch.float32, tl.float32)


def forward_row(x: Tensor) -> str:
    """The row of the table for the forward pass over images x [N, H, W, C].

    >>> [forward_row(torch.empty(1, size, size, 128)) for size in (28, 64)]
    ['norm_act_pool_forward_256', 'norm_act_pool_forward_loop']
    """
    windows = -(-x.shape[1] // 2) * -(-x.shape[2] // 2)
    sizes = [size for size in _WHOLE if windows <= size and x.dtype != torch.float64]
    return f"norm_act_pool_forward_{sizes[0] if sizes else 'loop'}"


def _launch(kernel, row: str, x: Tensor, *arguments) -> None:
    """One program per image and block of channels; an empty x needs none."""
    options = config(row, x.device)
    programs = x.shape[0] * -(-x.shape[3] // options["CHANNELS"])
    if programs:
        with _on(x.device):
            kernel[(programs,)](*arguments, **options)


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
    dtype, acc = _accumulator(x.dtype)
    stats = x.new_empty((n, 2, c), dtype=dtype)
    arguments = x, weight.contiguous(), bias.contiguous(), y, stats, h, w, c, rows * columns, eps, acc, pool
    _launch(norm_act_pool_forward, forward_row(x), x, *arguments)
    return y, stats


def norm_act_pool_backward(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, pool: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Launches for dx, dw and db: two."""
    g, x, weight, bias, stats = (t.contiguous() for t in (g, x, weight, bias, stats))
    n, h, w, c = x.shape
    rows, columns = _outputs(x, pool)
    dx, sums = torch.empty_like(x), stats.new_empty((2, n, c))
    _, acc = _accumulator(x.dtype)
    arguments = g, x, weight, bias, stats, dx, sums, n, h, w, c, rows * columns, acc, pool
    _launch(norm_act_pool_gradient, "norm_act_pool_gradient", x, *arguments)
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
    _, acc = _accumulator(x.dtype)
    arguments = *inputs, to_g, to_x, sums, h, w, c, rows * columns, acc, pool
    _launch(norm_act_pool_second, "norm_act_pool_second", x, *arguments)
    return to_g, to_x, *_sum(sums)
