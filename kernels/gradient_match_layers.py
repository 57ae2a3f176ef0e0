"""Triton kernels of gradient_match over all layers at once. Never run on a GPU yet.

The layers' gradients lie side by side, [S, T] and [C, T], and a table says where every row starts and how long it is.
A program has one row of one class and goes over that class's segments: one launch for all products, one for the
distances, one for their gradient, however many layers. No atomics.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.gradient_match import class_range
from fastdd.kernels.segment_mean import accumulator, on

# As published: added to the product of the norms.
_EPS = tl.constexpr(1e-6)


@triton.jit
def is_present(present, i_s, HAS_PRESENT: tl.constexpr):
    """1 or 0."""
    if HAS_PRESENT:
        return tl.load(present + i_s).to(tl.int32)
    else:
        return 1


@triton.jit
def layers_multiply(
    a,
    b,
    classes,
    present,
    starts,
    lengths,
    ab,
    aa,
    bb,
    n_segments,
    n_classes,
    n_rows,
    size,
    ACC: tl.constexpr,
    METRIC: tl.constexpr,
    HAS_PRESENT: tl.constexpr,
    SEGMENTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    i_class = (tl.program_id(0) // n_rows).to(tl.int64)
    i_r = tl.program_id(0) % n_rows
    start = tl.load(starts + i_r)
    length = tl.load(lengths + i_r)
    o_c = tl.arange(0, COLUMNS)
    first, last = class_range(classes, i_class, n_segments, SEGMENTS)
    b += i_class * size + start
    for i_s in range(first, last):
        mine = tl.load(classes + i_s) == i_class
        n_read = tl.where(mine, length * is_present(present, i_s, HAS_PRESENT), 0)
        b_ab = tl.zeros((COLUMNS,), dtype=ACC)
        b_aa = tl.zeros((COLUMNS,), dtype=ACC)
        b_bb = tl.zeros((COLUMNS,), dtype=ACC)
        for i in range(0, n_read, COLUMNS):
            m_c = i + o_c < n_read
            b_a = tl.load(a + i_s * size + start + i + o_c, mask=m_c, other=0.0).to(ACC)
            b_b = tl.load(b + i + o_c, mask=m_c, other=0.0)
            if METRIC == "l1":
                b_ab += tl.abs(b_a - b_b)
            elif METRIC == "mse":
                b_ab += (b_a - b_b) * (b_a - b_b)
            else:
                b_ab += b_a * b_b
                b_aa += b_a * b_a
                b_bb += b_b * b_b
        o_out = i_s * n_rows + i_r
        tl.store(ab + o_out, tl.sum(b_ab, axis=0), mask=mine)
        if METRIC == "ours" or METRIC == "cos":
            tl.store(aa + o_out, tl.sum(b_aa, axis=0), mask=mine)
            tl.store(bb + o_out, tl.sum(b_bb, axis=0), mask=mine)


@triton.jit
def layers_totals(ab, aa, bb, i_s, n_rows, ROWS: tl.constexpr):
    """Of a segment, the sums of its rows' products, float64."""
    b_ab = tl.zeros((ROWS,), dtype=tl.float64)
    b_aa = tl.zeros((ROWS,), dtype=tl.float64)
    b_bb = tl.zeros((ROWS,), dtype=tl.float64)
    for i in range(0, n_rows, ROWS):
        o_r = i + tl.arange(0, ROWS)
        o_in = i_s * n_rows + o_r
        b_ab += tl.load(ab + o_in, mask=o_r < n_rows, other=0.0).to(tl.float64)
        b_aa += tl.load(aa + o_in, mask=o_r < n_rows, other=0.0).to(tl.float64)
        b_bb += tl.load(bb + o_in, mask=o_r < n_rows, other=0.0).to(tl.float64)
    return tl.sum(b_ab, axis=0), tl.sum(b_aa, axis=0), tl.sum(b_bb, axis=0)


@triton.jit
def layers_finish(
    ab,
    aa,
    bb,
    present,
    out,
    n_rows,
    METRIC: tl.constexpr,
    HAS_PRESENT: tl.constexpr,
    ROWS: tl.constexpr,
):
    i_s = tl.program_id(0).to(tl.int64)
    eps = tl.full((), _EPS, dtype=tl.float64)  # as an argument it would be float32
    if METRIC == "cos":
        t_ab, t_aa, t_bb = layers_totals(ab, aa, bb, i_s, n_rows, ROWS)
        total = 1 - t_ab / (tl.sqrt(t_aa) * tl.sqrt(t_bb) + eps)
    else:
        b_sum = tl.zeros((ROWS,), dtype=tl.float64)
        for i in range(0, n_rows, ROWS):
            o_r = i + tl.arange(0, ROWS)
            m_r = o_r < n_rows
            b_ab = tl.load(ab + i_s * n_rows + o_r, mask=m_r, other=0.0).to(tl.float64)
            if METRIC == "ours":
                b_aa = tl.load(aa + i_s * n_rows + o_r, mask=m_r, other=0.0).to(tl.float64)
                b_bb = tl.load(bb + i_s * n_rows + o_r, mask=m_r, other=0.0).to(tl.float64)
                b_sum += tl.where(m_r, 1 - b_ab / (tl.sqrt(b_aa) * tl.sqrt(b_bb) + eps), 0)
            else:
                b_sum += b_ab
        total = tl.sum(b_sum, axis=0)
    here = is_present(present, i_s, HAS_PRESENT)
    tl.store(out + i_s, tl.where(here != 0, total, 0))


@triton.jit
def cosine_factors(ab, aa, bb, eps):
    """Factors of a and of b in the gradient of 1 - ab / (|a| |b| + eps); float64."""
    norm_a = tl.sqrt(aa)
    norm_b = tl.sqrt(bb)
    below = norm_a * norm_b + eps
    # The norm of zeros has slope 0.
    of_b = tl.where(norm_b == 0, 0, ab * norm_a / (below * below * tl.where(norm_b == 0, 1, norm_b)))
    return -1 / below, of_b


@triton.jit
def layers_pull(
    g,
    a,
    b,
    classes,
    present,
    starts,
    lengths,
    ab,
    aa,
    bb,
    out,
    n_segments,
    n_rows,
    size,
    ACC: tl.constexpr,
    METRIC: tl.constexpr,
    HAS_PRESENT: tl.constexpr,
    SEGMENTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    i_class = (tl.program_id(0) // n_rows).to(tl.int64)
    i_r = tl.program_id(0) % n_rows
    start = tl.load(starts + i_r)
    length = tl.load(lengths + i_r)
    first, last = class_range(classes, i_class, n_segments, SEGMENTS)
    b += i_class * size + start
    out += i_class * size + start
    eps = tl.full((), _EPS, dtype=tl.float64)  # as an argument it would be float32
    for i in range(0, length, COLUMNS):
        o_c = i + tl.arange(0, COLUMNS)
        m_c = o_c < length
        # A class without segments: nothing is read, and its sum is zero.
        b_b = tl.load(b + o_c, mask=o_c < tl.where(first < last, length, 0), other=0.0)
        b_sum = tl.zeros((COLUMNS,), dtype=ACC)
        for i_s in range(first, last):
            mine = tl.load(classes + i_s) == i_class
            n_read = tl.where(mine, length * is_present(present, i_s, HAS_PRESENT), 0)
            b_a = tl.load(a + i_s * size + start + o_c, mask=o_c < n_read, other=0.0).to(ACC)
            slope = tl.load(g + i_s).to(tl.float64)
            if METRIC == "l1":
                b_term = slope.to(ACC) * ((b_b > b_a).to(ACC) - (b_b < b_a).to(ACC))
            elif METRIC == "mse":
                b_term = (2 * slope).to(ACC) * (b_b - b_a)
            else:
                if METRIC == "cos":
                    t_ab, t_aa, t_bb = layers_totals(ab, aa, bb, i_s, n_rows, ROWS)
                else:
                    o_in = i_s * n_rows + i_r
                    t_ab = tl.load(ab + o_in).to(tl.float64)
                    t_aa = tl.load(aa + o_in).to(tl.float64)
                    t_bb = tl.load(bb + o_in).to(tl.float64)
                of_a, of_b = cosine_factors(t_ab, t_aa, t_bb, eps)
                b_term = (slope * of_a).to(ACC) * b_a + (slope * of_b).to(ACC) * b_b
            b_sum += tl.where(o_c < n_read, b_term, 0)
        tl.store(out + o_c, b_sum, mask=m_c)


# Never forgotten: a captured graph reads it where it lies.
@functools.cache
def _table(rows: tuple[int, ...], columns: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where every row starts, and its length; made once, so that no step brings anything from the host."""
    starts, lengths, first = [], [], 0
    for count, length in zip(rows, columns, strict=True):
        starts += range(first, first + count * length, length) if length else [first] * count
        lengths += [length] * count
        first += count * length
    return torch.tensor(starts, device=device), torch.tensor(lengths, dtype=torch.int32, device=device)


def gradient_match_layers(
    a: Tensor, b: Tensor, classes: Tensor, present: Tensor | None, rows: list[int], columns: list[int], metric: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Launches for ``fastdd::gradient_match_layers``: two."""
    a, b, classes = a.contiguous(), b.contiguous(), classes.contiguous()
    segments, count = a.shape[0], sum(rows)
    _, acc = accumulator(a.dtype)
    out, ab = b.new_empty(segments), b.new_empty((segments, count))
    aa, bb = (torch.empty_like(ab), torch.empty_like(ab)) if metric in ("ours", "cos") else (ab, ab)
    if segments and count:
        marks = classes if present is None else present.contiguous().view(torch.uint8)
        options = config("layers_multiply", a.device)
        sizes = segments, b.shape[0], count, a.shape[1]
        chosen = {"METRIC": metric, "HAS_PRESENT": present is not None}
        with on(a.device):
            layers_multiply[(b.shape[0] * count,)](
                a,
                b,
                classes,
                marks,
                *_table((*rows,), (*columns,), a.device),
                ab,
                aa,
                bb,
                *sizes,
                acc,
                **chosen,
                **options,
            )
            options = config("layers_finish", a.device)
            layers_finish[(segments,)](ab, aa, bb, marks, out, count, **chosen, **options)
    else:
        out.zero_()
    none = ab.new_empty(0)
    return out, ab, *((aa, bb) if aa is not ab else (none, none.clone()))


def gradient_match_layers_pull(
    g: Tensor,
    a: Tensor,
    b: Tensor,
    classes: Tensor,
    present: Tensor | None,
    ab: Tensor,
    aa: Tensor,
    bb: Tensor,
    rows: list[int],
    columns: list[int],
    metric: str,
) -> Tensor:
    """Launches for ``fastdd::gradient_match_layers_pull``: one."""
    g, a, b, classes = g.contiguous(), a.contiguous(), b.contiguous(), classes.contiguous()
    count, out = sum(rows), torch.empty_like(b)
    _, acc = accumulator(a.dtype)
    if out.numel():
        marks = classes if present is None else present.contiguous().view(torch.uint8)
        with on(a.device):
            layers_pull[(b.shape[0] * count,)](
                g,
                a,
                b,
                classes,
                marks,
                *_table((*rows,), (*columns,), a.device),
                *(t.contiguous() for t in (ab, aa, bb)),
                out,
                a.shape[0],
                count,
                a.shape[1],
                acc,
                METRIC=metric,
                HAS_PRESENT=present is not None,
                **config("layers_pull", a.device),
            )
    return out
