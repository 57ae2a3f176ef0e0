"""The weight gradient: for each tap, the product of two matrices over all pixels, which are split among programs."""

import triton
import triton.language as tl

from fastdd.kernels.conv3x3.parts import product, read_parts, transposed


@triton.jit
def conv3x3_weight_tiles(
    x,
    g,
    partials,
    x_size,
    g_size,
    n_pixels,
    split_pixels,
    height,
    width,
    inputs,
    outputs,
    UPCAST: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """partials[split, tap, o, i] = sum over the split's pixels of g[pixel, o] x[pixel + tap, i]."""
    # The taps of the same pixels come one after another: those are in the cache then.
    tap = tl.program_id(0) % 9
    i_block = tl.program_id(0) // 9
    across = tl.cdiv(inputs, INPUTS)
    blocks = across * tl.cdiv(outputs, OUTPUTS)
    i_split = (i_block // blocks).to(tl.int64)
    o_o = (i_block % blocks) // across * OUTPUTS + tl.arange(0, OUTPUTS)
    o_i = (i_block % blocks) % across * INPUTS + tl.arange(0, INPUTS)
    m_o, m_i = o_o < outputs, o_i < inputs
    dy = tap // 3 - 1
    dx = tap % 3 - 1
    shift = (dy * width + dx) * inputs
    first = i_split * split_pixels
    last = tl.minimum(first + split_pixels, n_pixels)
    b_sum = tl.zeros((OUTPUTS, INPUTS), dtype=tl.float32)
    for start in range(first, last, ROWS):
        o_p = start + tl.arange(0, ROWS)
        m_p = o_p < last
        b_p = o_p.to(tl.int32)
        b_h = (b_p // width) % height + dy
        b_w = b_p % width + dx
        m_x = m_p & (b_h >= 0) & (b_h < height) & (b_w >= 0) & (b_w < width)
        b_g = read_parts(g, g_size, o_p[:, None] * outputs + o_o[None, :], m_p[:, None] & m_o[None, :], UPCAST)
        o_x = o_p[:, None] * inputs + (shift + o_i)[None, :]
        b_x = read_parts(x, x_size, o_x, m_x[:, None] & m_i[None, :], UPCAST)
        b_sum += product(transposed(b_g), b_x)
    o_out = ((i_split * 9 + tap) * outputs + o_o)[:, None] * inputs + o_i[None, :]
    tl.store(partials + o_out, b_sum, mask=m_o[:, None] & m_i[None, :])
