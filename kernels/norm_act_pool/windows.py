"""What the kernels share: an image's windows, reading and writing them, their activations and shares."""

import triton
import triton.language as tl


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
def write_output(g, o_x, o_y, m_x, width, channels, b_t, POOL: tl.constexpr):
    """What the pixels of each output come to."""
    if POOL == "none":
        write(g, o_x, m_x, width, channels, b_t)
    else:
        tl.store(g + o_y, added(b_t), mask=m_x[3])


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
