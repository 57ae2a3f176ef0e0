"""The convolution, by tiles of pixels and of output channels; alone, or with norm, activation and pooling."""

import triton
import triton.language as tl

from fastdd.kernels.conv3x3.parts import product, read_parts


@triton.jit
def convolved(
    x,
    filters,
    x_size,
    filters_size,
    o_p,
    b_h,
    b_w,
    m_p,
    o_o,
    height,
    width,
    inputs,
    outputs,
    ADJOINT: tl.constexpr,
    UPCAST: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INNER: tl.constexpr,
):
    """[ROWS, OUTPUTS]: the convolution at pixels o_p (64-bit), which are row b_h and column b_w of their images."""
    b_sum = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    o_k = tl.arange(0, INNER)
    m_o = o_o < outputs
    o_x = o_p * inputs
    blocks = tl.cdiv(inputs, INNER)
    # One loop over taps and channels, which Triton pipelines as a whole.
    for step in range(0, 9 * blocks):
        tap = step // blocks
        i_k = (step % blocks) * INNER
        dy = tap // 3 - 1
        dx = tap % 3 - 1
        m_k = i_k + o_k < inputs
        b_y = b_h + dy
        b_z = b_w + dx
        m_x = m_p & (b_y >= 0) & (b_y < height) & (b_z >= 0) & (b_z < width)
        shift = (dy * width + dx) * inputs + i_k
        b_x = read_parts(x, x_size, o_x[:, None] + (shift + o_k)[None, :], m_x[:, None] & m_k[None, :], UPCAST)
        row = (8 - tap if ADJOINT else tap) * inputs + i_k
        o_f = (row + o_k)[:, None] * outputs + o_o[None, :]
        b_f = read_parts(filters, filters_size, o_f, m_k[:, None] & m_o[None, :], UPCAST)
        b_sum += product(b_x, b_f)
    return b_sum


@triton.jit
def conv3x3_tiles(
    x,
    filters,
    bias,
    y,
    x_size,
    filters_size,
    n_pixels,
    height,
    width,
    inputs,
    outputs,
    BIAS: tl.constexpr,
    ADJOINT: tl.constexpr,
    UPCAST: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INNER: tl.constexpr,
):
    # Blocks of outputs of the same pixels come one after another: those are in the cache then.
    blocks = tl.cdiv(outputs, OUTPUTS)
    o_p = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    o_o = (tl.program_id(0) % blocks) * OUTPUTS + tl.arange(0, OUTPUTS)
    m_p = o_p < n_pixels
    b_p = o_p.to(tl.int32)  # as many pixels as 32 bits count fill a GPU; divisions of 64 bits are slow
    b_h = (b_p // width) % height
    b_w = b_p % width
    b_y = convolved(
        x, filters, x_size, filters_size, o_p, b_h, b_w, m_p, o_o, height, width, inputs, outputs,
        ADJOINT, UPCAST, ROWS, OUTPUTS, INNER,
    )  # fmt: skip
    if BIAS:
        b_y += tl.load(bias + o_o, mask=o_o < outputs, other=0.0)[None, :]
    tl.store(y + o_p[:, None] * outputs + o_o[None, :], b_y, mask=m_p[:, None] & (o_o < outputs)[None, :])


@triton.jit
def normalised(b_x, b_m, weight, bias, o_o, m_o, n_pixels, eps):
    """[IMAGES, PIXELS, OUTPUTS]: instance norm and ReLU over the pixels where ``b_m``."""
    b_mean = tl.sum(tl.where(b_m, b_x, 0.0), axis=1, keep_dims=True) / n_pixels
    b_d = tl.where(b_m, b_x - b_mean, 0.0)
    b_variance = tl.sum(b_d * b_d, axis=1, keep_dims=True) / n_pixels
    b_scale = tl.load(weight + o_o, mask=m_o, other=0.0)[None, None, :] / tl.sqrt_rn(b_variance + eps)
    b_z = b_d * b_scale + tl.load(bias + o_o, mask=m_o, other=0.0)[None, None, :]
    return tl.maximum(b_z, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def larger(b_a, b_b):
    return tl.maximum(b_a, b_b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def conv_block_whole(
    x,
    filters,
    weight,
    bias,
    y,
    x_size,
    filters_size,
    n_images,
    height,
    width,
    inputs,
    outputs,
    eps,
    POOL: tl.constexpr,
    UPCAST: tl.constexpr,
    PIXELS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INNER: tl.constexpr,
):
    """Whole images in a program. Pixels by windows of 2x2, which stick out of odd edges: pooling adds up neighbours."""
    IMAGES: tl.constexpr = ROWS // PIXELS
    blocks = tl.cdiv(outputs, OUTPUTS)
    o_r = tl.arange(0, ROWS)
    o_n = (tl.program_id(0) // blocks).to(tl.int64) * IMAGES + o_r // PIXELS
    o_o = (tl.program_id(0) % blocks) * OUTPUTS + tl.arange(0, OUTPUTS)
    m_o = o_o < outputs
    across = (width + 1) // 2
    o_v = o_r % PIXELS // 4
    b_h = o_v // across * 2 + o_r % 4 // 2
    b_w = o_v % across * 2 + o_r % 2
    m_p = (o_n < n_images) & (b_h < height) & (b_w < width)
    o_p = (o_n * height + b_h) * width + b_w
    b_x = convolved(
        x, filters, x_size, filters_size, o_p, b_h, b_w, m_p, o_o, height, width, inputs, outputs,
        False, UPCAST, ROWS, OUTPUTS, INNER,
    )  # fmt: skip
    b_m = tl.reshape(m_p, (IMAGES, PIXELS, 1))
    b_z = normalised(tl.reshape(b_x, (IMAGES, PIXELS, OUTPUTS)), b_m, weight, bias, o_o, m_o, height * width, eps)
    if POOL == "none":
        b_y = tl.reshape(b_z, (ROWS, OUTPUTS))
        tl.store(y + o_p[:, None] * outputs + o_o[None, :], b_y, mask=m_p[:, None] & m_o[None, :])
    else:
        WINDOWS: tl.constexpr = ROWS // 4
        b_four = tl.reshape(b_z, (WINDOWS, 4, OUTPUTS))
        b_y = tl.sum(b_four, axis=1) * 0.25 if POOL == "avg" else tl.reduce(b_four, 1, larger)
        o_w = tl.arange(0, WINDOWS)
        o_i = (tl.program_id(0) // blocks).to(tl.int64) * IMAGES + o_w // (PIXELS // 4)
        o_v = o_w % (PIXELS // 4)
        b_h = o_v // across
        b_w = o_v % across
        m_w = (o_i < n_images) & (b_h < height // 2) & (b_w < width // 2)
        o_y = (o_i * (height // 2) + b_h) * (width // 2) + b_w
        tl.store(y + o_y[:, None] * outputs + o_o[None, :], b_y, mask=m_w[:, None] & m_o[None, :])
