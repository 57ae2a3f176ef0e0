"""The forward kernel."""

import triton
import triton.language as tl

from fastdd.kernels.norm_act_pool.windows import (
    across,
    activations,
    added,
    counts,
    divide,
    inside,
    minus,
    places,
    read,
    rectified,
    root,
    share_of_program,
    times,
    write,
)


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
