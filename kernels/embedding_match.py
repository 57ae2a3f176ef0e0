"""Triton kernels of embedding_match. Their tests pass on an H200.

Two launches forward: the sums of segment_mean, to which the synthetic classes are added as further segments; then
means, differences and their squared lengths. One launch backward. Sums are taken in a fixed order, without atomics.
"""

import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.segment_mean import accumulator, on, splits, weighted_rows


@triton.jit
def match_sums(
    real,
    synthetic,
    offsets,
    weights,
    sums,
    totals,
    n_segments,
    n_classes,
    n_columns,
    ipc,
    n_splits,
    ACC: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # sums: [n_splits, n_segments + n_classes, n_columns], where classes have a sum in the first split only.
    blocks = tl.cdiv(n_columns, COLUMNS)
    i_s = (tl.program_id(0) // blocks).to(tl.int64)
    i_c = tl.program_id(0) % blocks
    i_k = tl.program_id(1).to(tl.int64)
    o_c = i_c * COLUMNS + tl.arange(0, COLUMNS)
    m_c = o_c < n_columns
    i_row = i_k * (n_segments + n_classes) + i_s
    if i_s < n_segments:
        start = tl.load(offsets + i_s)
        end = tl.load(offsets + i_s + 1)
        length = tl.cdiv(end - start, n_splits)
        start = start + i_k * length
        end = tl.minimum(end, start + length)
        b_sum, total = weighted_rows(real, weights, start, end, o_c, n_columns, ACC, WEIGHTED, ROWS, COLUMNS)
        tl.store(sums + i_row * n_columns + o_c, b_sum, mask=m_c)
        if i_c == 0:
            tl.store(totals + i_k * n_segments + i_s, total)
    elif i_k == 0:
        start = (i_s - n_segments) * ipc
        b_sum, _ = weighted_rows(synthetic, weights, start, start + ipc, o_c, n_columns, ACC, False, ROWS, COLUMNS)
        tl.store(sums + i_row * n_columns + o_c, b_sum, mask=m_c)


@triton.jit
def match_differences(
    sums,
    split_totals,
    classes,
    distances,
    differences,
    totals,
    n_segments,
    n_classes,
    n_columns,
    ipc,
    n_splits,
    ACC: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    i_s = tl.program_id(0).to(tl.int64)
    i_class = tl.load(classes + i_s)
    # Vectors of equal entries: a scalar carried through a loop would not keep ACC.
    b_total = tl.zeros((COLUMNS,), dtype=ACC)
    for i_k in range(0, n_splits):
        b_total += tl.load(split_totals + i_k * n_segments + i_s)
    b_distance = tl.zeros((COLUMNS,), dtype=ACC)
    for i_c in range(0, n_columns, COLUMNS):
        o_c = i_c + tl.arange(0, COLUMNS)
        m_c = o_c < n_columns
        b_sum = tl.zeros((COLUMNS,), dtype=ACC)
        for i_k in range(0, n_splits):
            i_row = i_k * (n_segments + n_classes) + i_s
            b_sum += tl.load(sums + i_row * n_columns + o_c, mask=m_c, other=0.0)
        b_class = tl.load(sums + (n_segments + i_class) * n_columns + o_c, mask=m_c, other=0.0)
        b_out = b_sum / tl.where(b_total == 0, 1.0, b_total) - b_class / ipc
        b_out = tl.where(b_total == 0, 0.0, b_out)
        b_distance += b_out * b_out
        tl.store(differences + i_s * n_columns + o_c, b_out, mask=m_c)
    tl.store(distances + i_s, tl.sum(b_distance, axis=0))
    tl.store(totals + i_s, tl.max(b_total, axis=0))


@triton.jit
def match_pull(
    scale,
    x,
    totals,
    classes,
    out,
    n_segments,
    n_columns,
    ipc,
    factor,
    ACC: tl.constexpr,
    SCALED: tl.constexpr,
    SEGMENTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    blocks = tl.cdiv(n_columns, COLUMNS)
    i_class = (tl.program_id(0) // blocks).to(tl.int64)
    o_c = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    m_c = o_c < n_columns
    b_sum = tl.zeros((SEGMENTS, COLUMNS), dtype=ACC)
    for i in range(0, n_segments, SEGMENTS):
        o_s = i + tl.arange(0, SEGMENTS).to(tl.int64)
        m_s = o_s < n_segments
        m_s = m_s & (tl.load(classes + o_s, mask=m_s, other=-1) == i_class)
        m_s = m_s & (tl.load(totals + o_s, mask=m_s, other=0.0) != 0)
        # What is masked is not read: every row is read by the programs of its class alone.
        b_x = tl.load(x + o_s[:, None] * n_columns + o_c[None, :], mask=m_s[:, None] & m_c[None, :], other=0.0)
        if SCALED:
            b_x *= tl.load(scale + o_s, mask=m_s, other=0.0)[:, None]
        b_sum += b_x
    b_out = tl.sum(b_sum, axis=0) * (tl.cast(factor, ACC) / ipc)
    for j in range(0, ipc):
        tl.store(out + (i_class * ipc + j) * n_columns + o_c, b_out, mask=m_c)


def embedding_match(
    real: Tensor, synthetic: Tensor, offsets: Tensor, weights: Tensor | None, classes: Tensor, num_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Launches for ``fastdd::embedding_match``: two."""
    real, synthetic = real.contiguous(), synthetic.contiguous()
    offsets, classes = offsets.contiguous(), classes.contiguous()
    n, columns = real.shape
    segments = classes.shape[0]
    ipc = synthetic.shape[0] // num_classes
    _, acc = accumulator(real.dtype)
    distances, totals = synthetic.new_empty(segments), synthetic.new_empty(segments)
    differences = synthetic.new_empty((segments, columns))
    if segments == 0:
        return distances, differences, totals
    options = config("match_sums", real.device)
    blocks = max(1, -(-columns // options["COLUMNS"]))
    k = splits(n, segments + num_classes, blocks)
    sums = synthetic.new_empty((k, segments + num_classes, columns))
    split_totals = synthetic.new_empty((k, segments))
    w = real if weights is None else weights.contiguous()
    shape = segments, num_classes, columns, ipc, k, acc
    with on(real.device):
        match_sums[(segments + num_classes) * blocks, k](
            real, synthetic, offsets, w, sums, split_totals, *shape, weights is not None, **options
        )
        options = config("match_differences", real.device)
        match_differences[(segments,)](sums, split_totals, classes, distances, differences, totals, *shape, **options)
    return distances, differences, totals
    options = config("match_sums", real.device)
    blocks = max(1, -(-columns // options["COLUMNS"]))
    k = splits(n, segments + num_classes, blocks)
    sums = synthetic.new_empty((k, segments + num_classes, columns))
    split_totals = synthetic.new_empty((k, segments))
    w = real if weights is None else weights.contiguous()
    shape = segments, num_classes, columns, ipc, k, acc
    with on(real.device):
        match_sums[(segments + num_classes) * blocks, k](
            real, synthetic, offsets, w, sums, split_totals, *shape, weights is not None, **options
        )
        match_differences[(segments,)](
            sums,
            split_totals,
            classes,
            distances,
            differences,
            totals,
            *shape,
            **config("match_differences", real.device),
        )
    return distances, differences, totals


def embedding_match_pull(
    scale: Tensor | None, x: Tensor, totals: Tensor, classes: Tensor, num_classes: int, n: int, factor: float
) -> Tensor:
    """Launches for ``fastdd::embedding_match_pull``: one."""
    x, totals, classes = x.contiguous(), totals.contiguous(), classes.contiguous()
    segments, columns = x.shape
    _, acc = accumulator(x.dtype)
    out = x.new_empty((n, columns))
    if n == 0 or columns == 0:
        return out
    options = config("match_pull", x.device)
    grid = num_classes * -(-columns // options["COLUMNS"])
    by = x if scale is None else scale.contiguous()
    with on(x.device):
        match_pull[(grid,)](
            by, x, totals, classes, out, segments, columns, n // num_classes, factor, acc, scale is not None, **options
        )
    return out
