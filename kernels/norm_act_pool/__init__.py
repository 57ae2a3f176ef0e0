"""Triton kernels of norm_act_pool, its backward and its double backward, with the formulas of
fastdd/reference/norm_act_pool.py. Their tests pass on an H200.

A program has one image and a block of channels, and reads it as 2x2 windows: a tuple of tiles [WINDOWS, CHANNELS], one
for each pixel of a window in reading order, so that pooling stays within a thread. Windows at an odd edge stick out:
their pixels count in the sums, but they have no output. The image passes by twice, for the sums and for the rest: the
second time from cache or, WHOLE, from registers.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config

# Images of up to so many windows have rows of the table of their own; one more row is for larger ones.
_SIZES = (16, 64, 256)


@triton.jit
def share_of_program(channels, CHANNELS: tl.constexpr):
    """Its image and channels, [1, CHANNELS]; the blocks of an image follow each other."""
    blocks = tl.cdiv(channels, CHANNELS)
    i_n = (tl.program_id(0) // blocks).to(tl.int64)
    o_c = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    # At most 4 to a thread, which keeps up to a dozen coefficients of each; 8, as bfloat16 loads would have it, spill.
    return i_n, tl.max_contiguous(o_c, (1, 4))


@triton.jit
def places(start, height, width, channels, o_c, WINDOWS: tl.constexpr):
    """Offsets of the first pixels of WINDOWS windows and of their outputs, and which of the 4 pixels are in the image.

    A window has an output if its last pixel is.
    """
    columns = (width + 1) // 2
    o_w = start + tl.arange(0, WINDOWS)[:, None]
    row = o_w // columns
    column = o_w % columns
    # 64-bit also within an image: 4096x4096 pixels of 128 channels are 2^31.
    o_x = (2 * row * width + 2 * column).to(tl.int64) * channels + o_c
    o_y = (row * (width // 2) + column).to(tl.int64) * channels + o_c
    m_0 = (2 * row < height) & (o_c < channels)
    m_1 = m_0 & (2 * column + 1 < width)
    m_2 = m_0 & (2 * row + 1 < height)
    return o_x, (m_0, m_1, m_2, m_1 & m_2), o_y


@triton.jit
def counts(start, height, width, WINDOWS: tl.constexpr):
    """How many pixels of each window are in the image, [WINDOWS, 1]."""
    columns = (width + 1) // 2
    o_w = start + tl.arange(0, WINDOWS)[:, None]
    below = tl.minimum(tl.maximum(height - o_w // columns * 2, 0), 2)
    return below * tl.minimum(width - o_w % columns * 2, 2)


@triton.jit
def read(x, o_x, m_x, width, channels, ACC: tl.constexpr):
    """The pixels of windows; 0 outside."""
    return (
        tl.load(x + o_x, mask=m_x[0], other=0.0).to(ACC),
        tl.load(x + channels + o_x, mask=m_x[1], other=0.0).to(ACC),
        tl.load(x + width * channels + o_x, mask=m_x[2], other=0.0).to(ACC),
        tl.load(x + (width + 1) * channels + o_x, mask=m_x[3], other=0.0).to(ACC),
    )


@triton.jit
def write(x, o_x, m_x, width, channels, b_t):
    tl.store(x + o_x, b_t[0], mask=m_x[0])
    tl.store(x + channels + o_x, b_t[1], mask=m_x[1])
    tl.store(x + width * channels + o_x, b_t[2], mask=m_x[2])
    tl.store(x + (width + 1) * channels + o_x, b_t[3], mask=m_x[3])


@triton.jit
def read_output(g, o_x, o_y, m_x, width, channels, ACC: tl.constexpr, POOL: tl.constexpr):
    """The gradient of the output that each pixel of windows belongs to."""
    if POOL == "none":
        return read(g, o_x, m_x, width, channels, ACC)
    else:
        b_g = tl.load(g + o_y, mask=m_x[3], other=0.0).to(ACC)
        return b_g, b_g, b_g, b_g


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
def times(b_a, b_b):
    return b_a[0] * b_b[0], b_a[1] * b_b[1], b_a[2] * b_b[2], b_a[3] * b_b[3]


@triton.jit
def added(b_t):
    return (b_t[0] + b_t[1]) + (b_t[2] + b_t[3])


@triton.jit
def minus(b_t, b_m):
    return b_t[0] - b_m, b_t[1] - b_m, b_t[2] - b_m, b_t[3] - b_m


@triton.jit
def inside(m_x, b_t):
    return (
        tl.where(m_x[0], b_t[0], 0.0),
        tl.where(m_x[1], b_t[1], 0.0),
        tl.where(m_x[2], b_t[2], 0.0),
        tl.where(m_x[3], b_t[3], 0.0),
    )


@triton.jit
def across(b_t):
    """[WINDOWS, CHANNELS] -> [1, CHANNELS]."""
    return tl.sum(b_t, axis=0, keep_dims=True)


@triton.jit
def merge(b_n, b_mean, b_square, b_x, m_x, b_k):
    """Take the pixels of windows into every lane's count, mean and sum of squared distances from it.

    From each window's own mean, and merged (Chan, Golub and LeVeque 1979): no difference of large squares.
    """
    b_own = added(b_x) * divide(1.0, tl.maximum(b_k, 1.0))
    b_d = inside(m_x, minus(b_x, b_own))
    b_share = divide(b_k, tl.maximum(b_n + b_k, 1.0))
    b_delta = b_own - b_mean
    b_square += added(times(b_d, b_d)) + b_delta * b_delta * (b_n * b_share)
    return b_n + b_k, b_mean + b_delta * b_share, b_square


@triton.jit
def activations(b_d, b_scale, b_shift):
    """z, from d = x - mean; rounded alike in all kernels, which must agree on its sign."""
    return (
        tl.fma(b_d[0], b_scale, b_shift),
        tl.fma(b_d[1], b_scale, b_shift),
        tl.fma(b_d[2], b_scale, b_shift),
        tl.fma(b_d[3], b_scale, b_shift),
    )


@triton.jit
def rectified(b_z):
    # Not max(z, 0), which may drop a NaN.
    return tl.where(b_z <= 0, 0.0, b_z)


@triton.jit
def shares(b_d, b_scale, b_shift, POOL: tl.constexpr):
    """How much of its output's gradient each pixel of a window gets: G = g * share."""
    b_z = activations(b_d, b_scale, b_shift)
    m_0, m_1, m_2, m_3 = b_z[0] > 0, b_z[1] > 0, b_z[2] > 0, b_z[3] > 0
    if POOL == "max":
        # The first of equal pixels.
        b_01 = tl.maximum(b_z[0], b_z[1])
        b_23 = tl.maximum(b_z[2], b_z[3])
        m_01 = b_01 >= b_23
        m_3 = m_3 & (b_z[3] > b_z[2]) & (b_z[3] > b_01)
        m_2 = m_2 & (b_z[2] >= b_z[3]) & (b_z[2] > b_01)
        m_1 = m_1 & (b_z[1] > b_z[0]) & m_01
        m_0 = m_0 & (b_z[0] >= b_z[1]) & m_01
    PART: tl.constexpr = 0.25 if POOL == "avg" else 1.0
    return (
        tl.where(m_0, PART, 0.0).to(b_scale.dtype),
        tl.where(m_1, PART, 0.0).to(b_scale.dtype),
        tl.where(m_2, PART, 0.0).to(b_scale.dtype),
        tl.where(m_3, PART, 0.0).to(b_scale.dtype),
    )


@triton.jit
def activate(y, b_d, b_scale, b_shift, o_x, o_y, m_x, width, channels, POOL: tl.constexpr):
    b_z = activations(b_d, b_scale, b_shift)
    b_a = rectified(b_z[0]), rectified(b_z[1]), rectified(b_z[2]), rectified(b_z[3])
    if POOL == "none":
        write(y, o_x, m_x, width, channels, b_a)
    elif POOL == "avg":
        tl.store(y + o_y, added(b_a) * 0.25, mask=m_x[3])
    else:
        tl.store(y + o_y, tl.maximum(tl.maximum(b_a[0], b_a[1]), tl.maximum(b_a[2], b_a[3])), mask=m_x[3])


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
    b_pixels = tl.zeros((1, CHANNELS), dtype=ACC) + height * width
    if WHOLE:
        o_x, m_x, o_y = places(0, height, width, channels, o_c, WINDOWS)
        b_x = read(x, o_x, m_x, width, channels, ACC)
        b_m = divide(across(added(b_x)), b_pixels)
        b_d = inside(m_x, minus(b_x, b_m))
        b_variance = divide(across(added(times(b_d, b_d))), b_pixels)
    else:
        b_n = tl.zeros((WINDOWS, 1), dtype=ACC)
        b_mean = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
        b_square = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
        for start in range(0, windows, WINDOWS):
            o_x, m_x, o_y = places(start, height, width, channels, o_c, WINDOWS)
            b_x = read(x, o_x, m_x, width, channels, ACC)
            b_k = counts(start, height, width, WINDOWS).to(ACC)
            b_n, b_mean, b_square = merge(b_n, b_mean, b_square, b_x, m_x, b_k)
        b_near = divide(across(b_n * b_mean), b_pixels)
        b_off = b_mean - b_near
        # What the mean lost to rounding shows in the sum of differences from it.
        b_rest = divide(across(b_n * b_off), b_pixels)
        b_m = b_near + b_rest
        b_variance = divide(across(b_square + b_n * b_off * b_off), b_pixels)
    b_r = divide(1.0, root(b_variance + tl.full((1, CHANNELS), EPS, dtype=ACC)))
    tl.store(stats + o_c, b_m, mask=m_c)
    tl.store(stats + channels + o_c, b_r, mask=m_c)
    b_scale = tl.load(weight + o_c, mask=m_c, other=0.0).to(ACC) * b_r
    b_shift = tl.load(bias + o_c, mask=m_c, other=0.0).to(ACC)
    if WHOLE:
        activate(y, b_d, b_scale, b_shift, o_x, o_y, m_x, width, channels, POOL)
    else:
        for start in range(0, windows, WINDOWS):
            o_x, m_x, o_y = places(start, height, width, channels, o_c, WINDOWS)
            b_d = minus(read(x, o_x, m_x, width, channels, ACC), b_m)
            activate(y, b_d, b_scale, b_shift, o_x, o_y, m_x, width, channels, POOL)


@triton.jit
def normalisation(weight, bias, stats, channels, o_c, m_c, ACC: tl.constexpr):
    """Mean, rstd, and scale and shift of z = scale (x - mean) + shift; [1, CHANNELS] each."""
    b_m = tl.load(stats + o_c, mask=m_c, other=0.0)
    b_r = tl.load(stats + channels + o_c, mask=m_c, other=0.0)
    b_scale = tl.load(weight + o_c, mask=m_c, other=0.0).to(ACC) * b_r
    return b_m, b_r, b_scale, tl.load(bias + o_c, mask=m_c, other=0.0).to(ACC)


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
    b_sum = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    b_sum_x = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    for start in range(0, windows, WINDOWS):
        o_x, m_x, o_y = places(start, height, width, channels, o_c, WINDOWS)
        b_d = minus(read(x, o_x, m_x, width, channels, ACC), b_m)
        b_g = read_output(g, o_x, o_y, m_x, width, channels, ACC, POOL)
        b_spread = times(b_g, shares(b_d, b_scale, b_shift, POOL))
        b_sum += added(b_spread)
        b_sum_x += added(times(b_spread, b_d))
    b_db = across(b_sum)
    b_dw = across(b_sum_x) * b_r
    tl.store(sums + i_n * channels + o_c, b_dw, mask=m_c)
    tl.store(sums + (n_images + i_n) * channels + o_c, b_db, mask=m_c)
    # dx = scale G + slope (x - mean) + level
    b_each = divide(b_scale, tl.zeros((1, CHANNELS), dtype=ACC) + height * width)
    b_slope = -b_each * b_r * b_dw
    b_level = -b_each * b_db
    for start in range(0, windows, WINDOWS):
        o_x, m_x, o_y = places(start, height, width, channels, o_c, WINDOWS)
        b_d = minus(read(x, o_x, m_x, width, channels, ACC), b_m)
        b_g = read_output(g, o_x, o_y, m_x, width, channels, ACC, POOL)
        b_spread = times(b_g, shares(b_d, b_scale, b_shift, POOL))
        b_dx = (
            b_scale * b_spread[0] + (b_slope * b_d[0] + b_level),
            b_scale * b_spread[1] + (b_slope * b_d[1] + b_level),
            b_scale * b_spread[2] + (b_slope * b_d[2] + b_level),
            b_scale * b_spread[3] + (b_slope * b_d[3] + b_level),
        )
        write(dx, o_x, m_x, width, channels, b_dx)


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
    b_sum_u = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    b_sum_ux = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    b_sum_g = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    b_sum_gx = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    b_sum_gu = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    for start in range(0, windows, WINDOWS):
        o_x, m_x, o_y = places(start, height, width, channels, o_c, WINDOWS)
        b_u = read(u, o_x, m_x, width, channels, ACC)
        b_d = minus(read(x, o_x, m_x, width, channels, ACC), b_m)
        b_g = read_output(g, o_x, o_y, m_x, width, channels, ACC, POOL)
        b_spread = times(b_g, shares(b_d, b_scale, b_shift, POOL))
        b_sum_u += added(b_u)
        b_sum_ux += added(times(b_u, b_d))
        b_sum_g += added(b_spread)
        b_sum_gx += added(times(b_spread, b_d))
        b_sum_gu += added(times(b_spread, b_u))
    b_pixels = tl.zeros((1, CHANNELS), dtype=ACC) + height * width
    b_u_mean = divide(across(b_sum_u), b_pixels)
    b_ux = divide(across(b_sum_ux), b_pixels) * b_r
    b_g_mean = divide(across(b_sum_g), b_pixels)
    b_gx = divide(across(b_sum_gx), b_pixels) * b_r
    b_t = divide(across(b_sum_gu), b_pixels) - b_u_mean * b_g_mean - b_ux * b_gx
    tl.store(sums + i_n * channels + o_c, b_r * b_pixels * b_t, mask=m_c)
    b_vw = tl.load(vw + o_c, mask=m_c, other=0.0).to(ACC)
    b_vb = tl.load(vb + o_c, mask=m_c, other=0.0).to(ACC)
    # to_x = x_g G + x_u u + x_x (x - mean) + x_0, and to_g sums shares of scale u + x_g (x - mean) + g_0
    b_e = b_vw - b_scale * b_ux
    b_x_g = b_r * b_e
    b_x_u = -b_r * b_scale * b_gx
    b_x_x = -b_r * b_r * ((b_e - b_scale * b_ux) * b_gx + b_scale * b_t)
    b_x_0 = -b_r * (b_e * b_g_mean - b_scale * b_u_mean * b_gx)
    b_g_0 = b_vb - b_scale * b_u_mean
    for start in range(0, windows, WINDOWS):
        o_x, m_x, o_y = places(start, height, width, channels, o_c, WINDOWS)
        b_u = read(u, o_x, m_x, width, channels, ACC)
        b_d = minus(read(x, o_x, m_x, width, channels, ACC), b_m)
        b_g = read_output(g, o_x, o_y, m_x, width, channels, ACC, POOL)
        b_share = shares(b_d, b_scale, b_shift, POOL)
        b_spread = times(b_g, b_share)
        b_to_x = (
            b_x_g * b_spread[0] + b_x_u * b_u[0] + b_x_x * b_d[0] + b_x_0,
            b_x_g * b_spread[1] + b_x_u * b_u[1] + b_x_x * b_d[1] + b_x_0,
            b_x_g * b_spread[2] + b_x_u * b_u[2] + b_x_x * b_d[2] + b_x_0,
            b_x_g * b_spread[3] + b_x_u * b_u[3] + b_x_x * b_d[3] + b_x_0,
        )
        write(to_x, o_x, m_x, width, channels, b_to_x)
        b_back = (
            b_share[0] * (b_scale * b_u[0] + b_x_g * b_d[0] + b_g_0),
            b_share[1] * (b_scale * b_u[1] + b_x_g * b_d[1] + b_g_0),
            b_share[2] * (b_scale * b_u[2] + b_x_g * b_d[2] + b_g_0),
            b_share[3] * (b_scale * b_u[3] + b_x_g * b_d[3] + b_g_0),
        )
        if POOL == "none":
            write(to_g, o_x, m_x, width, channels, b_back)
        else:
            tl.store(to_g + o_y, added(b_back), mask=m_x[3])


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


def _launch(kernel, name: str, pool: str, x: Tensor, *arguments) -> None:
    """One program per image and block of channels; an empty x needs none."""
    options = config(row(name, x, pool), x.device)
    _, acc = _accumulator(x.dtype)
    programs = x.shape[0] * -(-x.shape[3] // options["CHANNELS"])
    if programs:
        with _on(x.device):
            kernel[(programs,)](*arguments, ACC=acc, POOL=pool, **options)


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
    _launch(norm_act_pool_gradient, "gradient", pool, x, *arguments)
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
    _launch(norm_act_pool_second, "second", pool, x, *arguments)
    return to_g, to_x, *_sum(sums)
