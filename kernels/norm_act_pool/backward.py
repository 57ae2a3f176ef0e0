"""The kernels of the first and the second derivative, and the sums over images."""

import triton
import triton.language as tl

from fastdd.kernels.norm_act_pool.windows import (
    across,
    added,
    divide,
    minus,
    places,
    read,
    read_output,
    share_of_program,
    shares,
    times,
    write,
    write_output,
)


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
    AFFINE: tl.constexpr,
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
    if AFFINE:
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
def second_sums(
    u,
    g,
    x,
    b_m,
    b_scale,
    b_shift,
    height,
    width,
    channels,
    o_c,
    ACC: tl.constexpr,
    POOL: tl.constexpr,
    WINDOWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Of u, u (x - mean), G, G (x - mean) and G u over an image's pixels, a lane each: [WINDOWS, CHANNELS] each."""
    b_sum_u = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    b_sum_ux = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    b_sum_g = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    b_sum_gx = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    b_sum_gu = tl.zeros((WINDOWS, CHANNELS), dtype=ACC)
    windows = ((height + 1) // 2) * ((width + 1) // 2)
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
    return b_sum_u, b_sum_ux, b_sum_g, b_sum_gx, b_sum_gu


@triton.jit
def combined(b_a, b_t, b_b, b_u, b_c, b_d, b_0):
    """a t + b u + c d + 0, pixel by pixel."""
    return (
        b_a * b_t[0] + b_b * b_u[0] + b_c * b_d[0] + b_0,
        b_a * b_t[1] + b_b * b_u[1] + b_c * b_d[1] + b_0,
        b_a * b_t[2] + b_b * b_u[2] + b_c * b_d[2] + b_0,
        b_a * b_t[3] + b_b * b_u[3] + b_c * b_d[3] + b_0,
    )


@triton.jit
def sloped(b_a, b_u, b_b, b_d, b_0):
    """a u + b d + 0, pixel by pixel."""
    return (
        b_a * b_u[0] + b_b * b_d[0] + b_0,
        b_a * b_u[1] + b_b * b_d[1] + b_0,
        b_a * b_u[2] + b_b * b_d[2] + b_0,
        b_a * b_u[3] + b_b * b_d[3] + b_0,
    )


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
    AFFINE: tl.constexpr,
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
    b_m, b_r, b_scale, b_shift = normalisation(weight, bias, stats, channels, o_c, m_c, ACC)
    b_sum_u, b_sum_ux, b_sum_g, b_sum_gx, b_sum_gu = second_sums(
        u, g, x, b_m, b_scale, b_shift, height, width, channels, o_c, ACC, POOL, WINDOWS, CHANNELS
    )
    b_pixels = tl.zeros((1, CHANNELS), dtype=ACC) + height * width
    b_u_mean = divide(across(b_sum_u), b_pixels)
    b_ux = divide(across(b_sum_ux), b_pixels) * b_r
    b_g_mean = divide(across(b_sum_g), b_pixels)
    b_gx = divide(across(b_sum_gx), b_pixels) * b_r
    b_t = divide(across(b_sum_gu), b_pixels) - b_u_mean * b_g_mean - b_ux * b_gx
    if AFFINE:
        tl.store(sums + i_n * channels + o_c, b_r * b_pixels * b_t, mask=m_c)
        b_vw = tl.load(vw + o_c, mask=m_c, other=0.0).to(ACC)
        b_vb = tl.load(vb + o_c, mask=m_c, other=0.0).to(ACC)
    else:
        b_vw = tl.zeros((1, CHANNELS), dtype=ACC)
        b_vb = tl.zeros((1, CHANNELS), dtype=ACC)
    # to_x = x_g G + x_u u + x_x (x - mean) + x_0, and to_g sums shares of scale u + x_g (x - mean) + g_0
    b_e = b_vw - b_scale * b_ux
    b_x_g = b_r * b_e
    b_x_u = -b_r * b_scale * b_gx
    b_x_x = -b_r * b_r * ((b_e - b_scale * b_ux) * b_gx + b_scale * b_t)
    b_x_0 = -b_r * (b_e * b_g_mean - b_scale * b_u_mean * b_gx)
    b_g_0 = b_vb - b_scale * b_u_mean
    windows = ((height + 1) // 2) * ((width + 1) // 2)
    for start in range(0, windows, WINDOWS):
        o_x, m_x, o_y = places(start, height, width, channels, o_c, WINDOWS)
        b_u = read(u, o_x, m_x, width, channels, ACC)
        b_d = minus(read(x, o_x, m_x, width, channels, ACC), b_m)
        b_g = read_output(g, o_x, o_y, m_x, width, channels, ACC, POOL)
        b_share = shares(b_d, b_scale, b_shift, POOL)
        b_spread = times(b_g, b_share)
        write(to_x, o_x, m_x, width, channels, combined(b_x_g, b_spread, b_x_u, b_u, b_x_x, b_d, b_x_0))
        b_back = times(b_share, sloped(b_scale, b_u, b_x_g, b_d, b_g_0))
        write_output(to_g, o_x, o_y, m_x, width, channels, b_back, POOL)


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
