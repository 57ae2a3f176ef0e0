"""float32 as three bfloat16 parts, and products of such parts on the tensor cores."""

import triton
import triton.language as tl


@triton.jit
def nearest_bf16(b_x):
    """float32 rounded to the nearest bfloat16, of two the even one. By bits: Triton's interpreter truncates instead."""
    b_bits = b_x.to(tl.int32, bitcast=True)
    b_up = b_bits + 0x7FFF + ((b_bits >> 16) & 1)
    return (b_up & -65536).to(tl.float32, bitcast=True)


@triton.jit
def split(x, parts, n, COLUMNS: tl.constexpr):
    """parts[0] + parts[1] + parts[2] = x [n]; what is not finite goes whole into the first."""
    o = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    m = o < n
    b_x = tl.load(x + o, mask=m, other=0.0)
    finite = tl.abs(b_x) < float("inf")
    b_high = tl.where(finite, nearest_bf16(b_x), b_x)
    b_rest = tl.where(finite, b_x - b_high, 0.0)
    b_middle = nearest_bf16(b_rest)
    b_low = nearest_bf16(b_rest - b_middle)
    n64 = tl.zeros((), dtype=tl.int64) + n
    tl.store(parts + o, b_high.to(tl.bfloat16), mask=m)
    tl.store(parts + n64 + o, b_middle.to(tl.bfloat16), mask=m)
    tl.store(parts + 2 * n64 + o, b_low.to(tl.bfloat16), mask=m)


@triton.jit
def read_parts(x, size, offsets, mask, UPCAST: tl.constexpr):
    """The three parts at the same places; ``size`` elements lie between one part and the next."""
    size = tl.zeros((), dtype=tl.int64) + size  # twice the size may pass 2^31
    b_high = tl.load(x + offsets, mask=mask, other=0.0)
    b_middle = tl.load(x + size + offsets, mask=mask, other=0.0)
    b_low = tl.load(x + 2 * size + offsets, mask=mask, other=0.0)
    if UPCAST:  # Triton's interpreter computes nonsense with bfloat16
        b_high, b_middle, b_low = b_high.to(tl.float32), b_middle.to(tl.float32), b_low.to(tl.float32)
    return b_high, b_middle, b_low


@triton.jit
def product(b_a, b_b):
    """a b to float32's precision, smallest parts first.

    In an accumulator of its own, which the caller adds to the others: tensor cores cut every sum off instead of
    rounding it, which over all of a convolution would cost five bits.
    """
    b_sum = tl.dot(b_a[2], b_b[0])
    b_sum = tl.dot(b_a[0], b_b[2], b_sum)
    b_sum = tl.dot(b_a[1], b_b[1], b_sum)
    b_sum = tl.dot(b_a[1], b_b[0], b_sum)
    b_sum = tl.dot(b_a[0], b_b[1], b_sum)
    return tl.dot(b_a[0], b_b[0], b_sum)


@triton.jit
def transposed(b_x):
    return tl.trans(b_x[0]), tl.trans(b_x[1]), tl.trans(b_x[2])
