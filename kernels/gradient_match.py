"""Triton kernels of the row products of gradient_match. Their tests pass on an H200.

A program has rows of one class and goes over that class's segments, so a synthetic row is read once, whatever the
number of groups, and every real row once: one launch a layer, without atomics.

Conditions on a segment or class set how many rows are valid, rather than being and-ed to a mask: in Triton's
interpreter, a scalar condition and a block of them do not make a mask.
"""

import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.segment_mean import accumulator, on

# Rows up to this long share a program.
_SHORT = 64


@triton.jit
def class_range(classes, i_class, n_segments, SEGMENTS: tl.constexpr):
    """First segment of a class and one past its last; in between, others may lie. First is past last if it has none."""
    b_first = tl.zeros((SEGMENTS,), dtype=tl.int64) + n_segments
    b_last = tl.zeros((SEGMENTS,), dtype=tl.int64)
    for i in range(0, n_segments, SEGMENTS):
        o_s = (i + tl.arange(0, SEGMENTS)).to(tl.int64)
        m_s = o_s < n_segments
        m_s = m_s & (tl.load(classes + o_s, mask=m_s, other=0) == i_class)
        b_first = tl.where(m_s, tl.minimum(b_first, o_s), b_first)
        b_last = tl.where(m_s, o_s + 1, b_last)
    return tl.min(b_first, axis=0), tl.max(b_last, axis=0)


@triton.jit
def row_multiply(
    a,
    b,
    classes,
    ab,
    aa,
    bb,
    n_segments,
    n_classes,
    n_rows,
    n_columns,
    ACC: tl.constexpr,
    DIFFERENCES: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    WHOLE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    blocks = tl.cdiv(n_rows, ROWS)
    i_class = (tl.program_id(0) // blocks).to(tl.int64)
    o_r = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    # The absent segments have a class too, -1; nothing is read for it, and its products are zero.
    n_read = tl.where(i_class == n_classes, 0, n_rows)
    i_class = tl.where(i_class == n_classes, -1, i_class)
    m_r = o_r < n_read
    o_c = tl.arange(0, COLUMNS)
    o_rc = o_r[:, None] * n_columns + o_c[None, :]
    first, last = class_range(classes, i_class, n_segments, SEGMENTS)
    b_class = b + i_class * n_rows * n_columns
    b_bb = tl.zeros((ROWS, COLUMNS), dtype=ACC)
    if WHOLE:
        b_b = tl.load(b_class + o_rc, mask=m_r[:, None] & (o_c[None, :] < n_columns), other=0.0)
        b_bb += b_b * b_b
    elif not DIFFERENCES:
        for i_c in range(0, n_columns, COLUMNS):
            b_b = tl.load(b_class + o_rc + i_c, mask=m_r[:, None] & (i_c + o_c[None, :] < n_columns), other=0.0)
            b_bb += b_b * b_b
    b_of = tl.sum(b_bb, axis=1)
    for i_s in range(first, last):
        mine = tl.load(classes + i_s) == i_class
        m_mine = o_r < tl.where(mine, n_read, 0)
        b_segment = a + i_s * n_rows * n_columns
        b_ab = tl.zeros((ROWS, COLUMNS), dtype=ACC)
        b_aa = tl.zeros((ROWS, COLUMNS), dtype=ACC)
        for i_c in range(0, COLUMNS if WHOLE else n_columns, COLUMNS):
            mask = m_mine[:, None] & (i_c + o_c[None, :] < n_columns)
            b_a = tl.load(b_segment + o_rc + i_c, mask=mask, other=0.0).to(ACC)
            if not WHOLE:
                b_b = tl.load(b_class + o_rc + i_c, mask=mask, other=0.0)
            if ABSOLUTE:
                b_ab += tl.abs(b_a - b_b)
            elif DIFFERENCES:
                b_ab += (b_a - b_b) * (b_a - b_b)
            else:
                b_ab += b_a * b_b
                b_aa += b_a * b_a
        o_out = i_s * n_rows + o_r
        m_out = o_r < tl.where(mine, n_rows, 0)
        tl.store(ab + o_out, tl.sum(b_ab, axis=1), mask=m_out)
        if not DIFFERENCES:
            tl.store(aa + o_out, tl.sum(b_aa, axis=1), mask=m_out)
            tl.store(bb + o_out, b_of, mask=m_out)


@triton.jit
def row_sums(
    p,
    q,
    a,
    b,
    classes,
    out,
    n_segments,
    n_rows,
    n_columns,
    ACC: tl.constexpr,
    DIFFERENCES: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row_blocks = tl.cdiv(n_rows, ROWS)
    blocks = tl.cdiv(n_columns, COLUMNS)
    i_class = (tl.program_id(0) // (row_blocks * blocks)).to(tl.int64)
    i_rc = tl.program_id(0) % (row_blocks * blocks)
    o_r = (i_rc // blocks) * ROWS + tl.arange(0, ROWS)
    o_c = (i_rc % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    m_c = o_c[None, :] < n_columns
    o_rc = o_r[:, None] * n_columns + o_c[None, :]
    first, last = class_range(classes, i_class, n_segments, SEGMENTS)
    o_class = i_class * n_rows * n_columns
    # A class without segments: nothing is read, and its sum is zero.
    m_b = (o_r < tl.where(first < last, n_rows, 0))[:, None] & m_c
    b_b = tl.load(b + o_class + o_rc, mask=m_b, other=0.0)
    b_sum = tl.zeros((ROWS, COLUMNS), dtype=ACC)
    b_q = tl.zeros((ROWS,), dtype=ACC)
    for i_s in range(first, last):
        mine = tl.load(classes + i_s) == i_class
        m_mine = o_r < tl.where(mine, n_rows, 0)
        b_p = tl.load(p + i_s * n_rows + o_r, mask=m_mine, other=0.0)
        b_a = tl.load(a + i_s * n_rows * n_columns + o_rc, mask=m_mine[:, None] & m_c, other=0.0).to(ACC)
        if ABSOLUTE:
            b_sum += b_p[:, None] * ((b_b > b_a).to(ACC) - (b_b < b_a).to(ACC))
        elif DIFFERENCES:
            b_sum += b_p[:, None] * (b_b - b_a)
        else:
            b_sum += b_p[:, None] * b_a
            b_q += tl.load(q + i_s * n_rows + o_r, mask=m_mine, other=0.0)
    if not DIFFERENCES:
        b_sum += b_q[:, None] * b_b
    tl.store(out + o_class + o_rc, b_sum, mask=(o_r < n_rows)[:, None] & m_c)


def _multiply(
    a: Tensor, b: Tensor, classes: Tensor, *, differences: bool = False, absolute: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    a, b, classes = a.contiguous(), b.contiguous(), classes.contiguous()
    segments, rows, columns = a.shape
    n_classes = b.shape[0]
    _, acc = accumulator(a.dtype)
    ab = b.new_empty((segments, rows))
    aa, bb = (ab, ab) if differences else (b.new_empty((segments, rows)), b.new_empty((segments, rows)))
    if segments == 0 or rows == 0:
        return ab, aa, bb
    options = config("row_multiply_short" if columns <= _SHORT else "row_multiply", a.device)
    grid = (n_classes + 1) * -(-rows // options["ROWS"])
    whole = columns <= options["COLUMNS"]
    with on(a.device):
        row_multiply[(grid,)](
            a, b, classes, ab, aa, bb, segments, n_classes, rows, columns, acc, differences, absolute, whole, **options
        )
    return ab, aa, bb


def _sums(p: Tensor, q: Tensor | None, a: Tensor, b: Tensor, classes: Tensor, absolute: bool = False) -> Tensor:
    p, a, b, classes = p.contiguous(), a.contiguous(), b.contiguous(), classes.contiguous()
    segments, rows, columns = a.shape
    _, acc = accumulator(a.dtype)
    out = b.new_empty(b.shape)
    if out.numel() == 0:
        return out
    options = config("row_sums_short" if columns <= _SHORT else "row_sums", a.device)
    grid = b.shape[0] * -(-rows // options["ROWS"]) * -(-columns // options["COLUMNS"])
    of_b = p if q is None else q.contiguous()
    with on(a.device):
        row_sums[(grid,)](p, of_b, a, b, classes, out, segments, rows, columns, acc, q is None, absolute, **options)
    return out


def gradient_match_products(a: Tensor, b: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Launches for ``fastdd::gradient_match_products``: one."""
    return _multiply(a, b, classes)


def gradient_match_combine(p: Tensor, q: Tensor, a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """Launches for ``fastdd::gradient_match_combine``: one."""
    return _sums(p, q, a, b, classes)


def gradient_match_distances(a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """Launches for ``fastdd::gradient_match_distances``: one."""
    return _multiply(a, b, classes, differences=True)[0]


def gradient_match_pull(p: Tensor, a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """Launches for ``fastdd::gradient_match_pull``: one."""
    return _sums(p, None, a, b, classes)


def gradient_match_absolutes(a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """Launches for ``fastdd::gradient_match_absolutes``: one."""
    return _multiply(a, b, classes, differences=True, absolute=True)[0]


def gradient_match_signs(p: Tensor, a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """Launches for ``fastdd::gradient_match_signs``: one."""
    return _sums(p, None, a, b, classes, absolute=True)
