"""Triton kernels of cf_means and cf_pull. They compile for sm_90, and agree with float64 in the interpreter; no GPU has
run them.

A program has some frequencies and some rows of one segment: a product, sine and cosine, and a weighted sum over the
rows, so that nothing of size [N, K] is written. Rows are split over several programs by shapes alone; their partial
sums are added in order. A pull goes over a bounded number of frequencies at a time: slopes of the rows' phases at
those, then their product with the frequencies.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.segment_mean import accumulator, on, segment_spread, splits

# Frequencies of a pull at a time, which bounds its memory.
_FREQUENCIES = 1024


@triton.jit
def sine_cosine(b_phase):
    """Sine and cosine of phases in radians, by whole quarter turns and a polynomial of the rest.

    Triton's own keep an array a thread for large arguments. In float32 phases from 2^22 quarters on count as none.
    """
    b_v = b_phase * 0.6366197723675814
    b_v = tl.where(tl.abs(b_v) >= 4194304.0, b_v * 0.0, b_v)
    b_q = tl.floor(b_v + 0.5)
    b_r = (b_v - b_q) * 1.5707963267948966
    b_z = b_r * b_r
    if b_v.dtype == tl.float64:
        b_s = b_z * -7.647163731819816e-13 + 1.6059043836821613e-10
        b_s = b_z * b_s - 2.505210838544172e-08
        b_s = b_z * b_s + 2.7557319223985893e-06
        b_s = b_z * b_s - 0.0001984126984126984
        b_s = b_z * b_s + 0.008333333333333333
        b_s = b_z * b_s - 0.16666666666666666
        b_c = b_z * 4.779477332387385e-14 - 1.1470745597729725e-11
        b_c = b_z * b_c + 2.08767569878681e-09
        b_c = b_z * b_c - 2.755731922398589e-07
        b_c = b_z * b_c + 2.48015873015873e-05
        b_c = b_z * b_c - 0.001388888888888889
        b_c = b_z * b_c + 0.041666666666666664
        b_c = b_z * b_c - 0.5
    else:
        b_s = b_z * 2.7557319e-06 - 0.0001984127
        b_s = b_z * b_s + 0.008333333
        b_s = b_z * b_s - 0.16666667
        b_c = b_z * -2.755732e-07 + 2.4801587e-05
        b_c = b_z * b_c - 0.0013888889
        b_c = b_z * b_c + 0.041666667
        b_c = b_z * b_c - 0.5
    b_s = b_r + b_r * b_z * b_s
    b_c = 1.0 + b_z * b_c
    i_q = b_q.to(tl.int32) & 3
    odd = (i_q & 1) == 1
    b_sine = tl.where(odd, b_c, b_s)
    b_cosine = tl.where(odd, b_s, b_c)
    b_sine = tl.where(i_q >= 2, -b_sine, b_sine)
    return b_sine, tl.where((i_q == 1) | (i_q == 2), -b_cosine, b_cosine)


@triton.jit
def phases(p_x, p_t, o_r, m_r, o_f, m_f, n_columns, ACC: tl.constexpr, DOT: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, FREQUENCIES], of rows at p_x and frequencies at p_t."""
    b_phase = tl.zeros((o_r.shape[0], o_f.shape[0]), dtype=ACC)
    for k in range(0, n_columns, COLUMNS):
        o_c = k + tl.arange(0, COLUMNS)
        m_c = o_c < n_columns
        b_x = tl.load(p_x + o_r[:, None] * n_columns + o_c[None, :], mask=m_r[:, None] & m_c[None, :], other=0.0)
        b_t = tl.load(p_t + o_f[None, :] * n_columns + o_c[:, None], mask=m_c[:, None] & m_f[None, :], other=0.0)
        b_phase = tl.dot(b_x.to(ACC), b_t, b_phase, input_precision=DOT, out_dtype=ACC)
    return b_phase


@triton.jit
def rows_of_program(offsets, i_s, i_k, n_splits):
    """The rows, from and to, of split i_k of a segment."""
    start = tl.load(offsets + i_s)
    end = tl.load(offsets + i_s + 1)
    length = tl.cdiv(end - start, n_splits)
    start = start + i_k * length
    return start, tl.minimum(start + length, end)


@triton.jit
def cf_sums(
    x,
    t,
    offsets,
    shares,
    classes,
    sums,
    n_segments,
    n_frequencies,
    n_columns,
    n_splits,
    ACC: tl.constexpr,
    DOT: tl.constexpr,
    SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    FREQUENCIES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # sums: [n_splits, n_segments, 2, n_frequencies]
    blocks = tl.cdiv(n_frequencies, FREQUENCIES)
    i_s = (tl.program_id(0) // blocks).to(tl.int64)
    i_f = (tl.program_id(0) % blocks).to(tl.int64) * FREQUENCIES
    i_k = tl.program_id(1).to(tl.int64)
    start, end = rows_of_program(offsets, i_s, i_k, n_splits)
    i_class = tl.load(classes + i_s) * 0 if SHARED else tl.load(classes + i_s)
    p_t = t + (i_class * n_frequencies + i_f) * n_columns
    o_f = tl.arange(0, FREQUENCIES)
    m_f = i_f + o_f < n_frequencies
    o_r = tl.arange(0, ROWS)
    b_real = tl.zeros((FREQUENCIES,), dtype=ACC)
    b_imaginary = tl.zeros((FREQUENCIES,), dtype=ACC)
    for i in range(start, end, ROWS):
        m_r = i + o_r < end
        b_phase = phases(x + i * n_columns, p_t, o_r, m_r, o_f, m_f, n_columns, ACC, DOT, COLUMNS)
        b_sine, b_cosine = sine_cosine(b_phase)
        # Rows past the end have no share.
        b_share = tl.load(shares + i + o_r, mask=m_r, other=0.0)[:, None]
        b_real += tl.sum(b_share * b_cosine, axis=0)
        b_imaginary += tl.sum(b_share * b_sine, axis=0)
    o_out = ((i_k * n_segments + i_s) * 2) * n_frequencies + i_f + o_f
    tl.store(sums + o_out, b_real, mask=m_f)
    tl.store(sums + o_out + n_frequencies, b_imaginary, mask=m_f)


@triton.jit
def cf_slopes(
    g,
    x,
    t,
    offsets,
    shares,
    classes,
    slopes,
    first,
    n_here,
    n_frequencies,
    n_columns,
    n_splits,
    ACC: tl.constexpr,
    DOT: tl.constexpr,
    SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    FREQUENCIES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # slopes: [N, n_here], of the frequencies from `first` on; g: [n_segments, 2, n_frequencies]
    blocks = tl.cdiv(n_here, FREQUENCIES)
    i_s = (tl.program_id(0) // blocks).to(tl.int64)
    i_f = (tl.program_id(0) % blocks).to(tl.int64) * FREQUENCIES
    start, end = rows_of_program(offsets, i_s, tl.program_id(1).to(tl.int64), n_splits)
    i_class = tl.load(classes + i_s) * 0 if SHARED else tl.load(classes + i_s)
    p_t = t + (i_class * n_frequencies + first + i_f) * n_columns
    o_f = tl.arange(0, FREQUENCIES)
    m_f = i_f + o_f < n_here
    o_r = tl.arange(0, ROWS)
    p_g = g + i_s * 2 * n_frequencies + first + i_f + o_f
    b_real = tl.load(p_g, mask=m_f, other=0.0)[None, :]
    b_imaginary = tl.load(p_g + n_frequencies, mask=m_f, other=0.0)[None, :]
    for i in range(start, end, ROWS):
        m_r = i + o_r < end
        b_phase = phases(x + i * n_columns, p_t, o_r, m_r, o_f, m_f, n_columns, ACC, DOT, COLUMNS)
        b_sine, b_cosine = sine_cosine(b_phase)
        b_share = tl.load(shares + i + o_r, mask=m_r, other=0.0)[:, None]
        b_slope = b_share * (b_cosine * b_imaginary - b_sine * b_real)
        p_out = slopes + i * n_here + i_f + o_r[:, None] * n_here + o_f[None, :]
        tl.store(p_out, b_slope, mask=m_r[:, None] & m_f[None, :])


@triton.jit
def cf_products(
    slopes,
    t,
    offsets,
    classes,
    out,
    first,
    n_here,
    n_frequencies,
    n_columns,
    n_splits,
    ACC: tl.constexpr,
    DOT: tl.constexpr,
    SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    FREQUENCIES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # out [N, n_columns] += slopes [N, n_here] times the frequencies from `first` on.
    blocks = tl.cdiv(n_columns, COLUMNS)
    i_s = (tl.program_id(0) // blocks).to(tl.int64)
    i_c = (tl.program_id(0) % blocks).to(tl.int64) * COLUMNS
    start, end = rows_of_program(offsets, i_s, tl.program_id(1).to(tl.int64), n_splits)
    i_class = tl.load(classes + i_s) * 0 if SHARED else tl.load(classes + i_s)
    p_t = t + (i_class * n_frequencies + first) * n_columns + i_c
    o_c = tl.arange(0, COLUMNS)
    m_c = i_c + o_c < n_columns
    o_r = tl.arange(0, ROWS)
    for i in range(start, end, ROWS):
        m_r = i + o_r < end
        m_rc = m_r[:, None] & m_c[None, :]
        p_out = out + i * n_columns + i_c + o_r[:, None] * n_columns + o_c[None, :]
        b_out = tl.load(p_out, mask=m_rc, other=0.0)
        for k in range(0, n_here, FREQUENCIES):
            o_f = k + tl.arange(0, FREQUENCIES)
            m_f = o_f < n_here
            p_slope = slopes + i * n_here + o_r[:, None] * n_here + o_f[None, :]
            b_slope = tl.load(p_slope, mask=m_r[:, None] & m_f[None, :], other=0.0)
            b_t = tl.load(p_t + o_f[:, None] * n_columns + o_c[None, :], mask=m_f[:, None] & m_c[None, :], other=0.0)
            b_out = tl.dot(b_slope, b_t, b_out, input_precision=DOT, out_dtype=ACC)
        tl.store(p_out, b_out, mask=m_rc)


def _shares(offsets: Tensor, weights: Tensor | None, n: int, like: Tensor) -> Tensor:
    """Every row's share of its segment's weight, [n]."""
    return segment_spread(like.new_ones((offsets.shape[0] - 1, 1)), offsets, weights, n)[:, 0].contiguous()


def _options(kernel: str, x: Tensor) -> tuple[dict[str, int], tuple]:
    wide = x.dtype == torch.float64
    _, acc = accumulator(x.dtype)
    return config(f"{kernel}_fp64" if wide else kernel, x.device), (acc, "ieee" if wide else "tf32x3")


def cf_means(x: Tensor, t: Tensor, offsets: Tensor, weights: Tensor | None, classes: Tensor) -> Tensor:
    """Launches for ``fastdd::cf_means``: one of the kernel, one or two for the shares, and a sum."""
    x, t, offsets, classes = x.contiguous(), t.contiguous(), offsets.contiguous(), classes.contiguous()
    (n, columns), segments, frequencies = x.shape, classes.shape[0], t.shape[1]
    if segments == 0 or frequencies == 0:
        return t.new_zeros((segments, frequencies, 2))
    options, precision = _options("cf_sums", x)
    blocks = -(-frequencies // options["FREQUENCIES"])
    k = splits(n, segments, blocks)
    sums = t.new_empty((k, segments, 2, frequencies))
    with on(x.device):
        shares = _shares(offsets, weights, n, t)
        cf_sums[segments * blocks, k](
            x,
            t,
            offsets,
            shares,
            classes,
            sums,
            segments,
            frequencies,
            columns,
            k,
            *precision,
            t.shape[0] == 1,
            **options,
        )
        return sums.sum(0).transpose(1, 2).contiguous()


def cf_pull(g: Tensor, x: Tensor, t: Tensor, offsets: Tensor, weights: Tensor | None, classes: Tensor) -> Tensor:
    """Launches for ``fastdd::cf_pull``: two for every 1,024 frequencies, and one or two for the shares."""
    x, t, offsets, classes = x.contiguous(), t.contiguous(), offsets.contiguous(), classes.contiguous()
    (n, columns), segments, frequencies = x.shape, classes.shape[0], t.shape[1]
    out = t.new_zeros((n, columns))
    if out.numel() == 0 or segments == 0 or frequencies == 0:
        return out
    of_means = g.transpose(1, 2).contiguous()
    shared = t.shape[0] == 1
    slopes = t.new_empty(n * min(frequencies, _FREQUENCIES))
    with on(x.device):
        shares = _shares(offsets, weights, n, t)
        for first in range(0, frequencies, _FREQUENCIES):
            here = min(_FREQUENCIES, frequencies - first)
            shape = first, here, frequencies, columns
            options, precision = _options("cf_slopes", x)
            blocks = -(-here // options["FREQUENCIES"])
            k = splits(n, segments, blocks)
            cf_slopes[segments * blocks, k](
                of_means, x, t, offsets, shares, classes, slopes, *shape, k, *precision, shared, **options
            )
            options, precision = _options("cf_products", x)
            blocks = -(-columns // options["COLUMNS"])
            k = splits(n, segments, blocks)
            cf_products[segments * blocks, k](
                slopes, t, offsets, classes, out, *shape, k, *precision, shared, **options
            )
    return out
