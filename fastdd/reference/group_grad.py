"""Weighted sums of outer products per segment, and what follows from them, in plain PyTorch.

Ground truth and fallback, and what runs on CPUs, where one product per segment is the fastest there is (2 threads:
180 GFLOP/s for 64 to 256 samples in 10 segments, bit for bit what ``torch.nn.functional.grouped_mm`` computes, which
refuses rows that are not multiples of 16 bytes).
"""

from itertools import pairwise

import torch
from torch import Tensor

from fastdd.reference.contents import ends_of
from fastdd.reference.segment_mean import accumulation_dtype


def _scaled(rows: Tensor, weights: Tensor | None, per_sample: int) -> Tensor:
    """Every row times the weight of its sample."""
    if weights is None:
        return rows
    return rows * weights.to(rows.dtype).repeat_interleave(per_sample)[:, None]


def _samples(rows: Tensor, per_sample: int) -> int:
    if per_sample < 1 or len(rows) % per_sample:
        raise ValueError(f"{len(rows)} rows are no multiple of rows={per_sample}, those of a sample")
    return len(rows) // per_sample


def grouped_outer(a: Tensor, b: Tensor, weights: Tensor | None, offsets: Tensor, rows: int) -> Tensor:
    """``out[s] = sum w_i b_r a_r^T`` over the rows r of the samples i of segment s; [S, Q, P].

    >>> a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0], [10.0]])
    >>> grouped_outer(a, b, None, torch.tensor([0, 2, 2]), 1)
    tensor([[[31., 42.]],
            [[ 0.,  0.]]])
    """
    dtype = accumulation_dtype(a.dtype)
    a, b = a.to(dtype), _scaled(b.to(dtype), weights, rows)
    ends = [rows * end for end in ends_of(offsets, _samples(a, rows))]
    if len(ends) == 1:
        return a.new_zeros((0, b.shape[1], a.shape[1]))
    return torch.stack([b[start:end].t() @ a[start:end] for start, end in pairwise(ends)])


def grouped_matmul(x: Tensor, g: Tensor, weights: Tensor | None, offsets: Tensor, rows: int) -> Tensor:
    """``out[r] = w_i x_r g[s]`` for the rows r of the samples i of segment s; [N * rows, M].

    >>> grouped_matmul(torch.tensor([[1.0], [2.0]]), torch.tensor([[[5.0]], [[7.0]]]), None, torch.tensor([0, 1, 2]), 1)
    tensor([[ 5.],
            [14.]])
    """
    ends = [rows * end for end in ends_of(offsets, _samples(x, rows))]
    if len(ends) == 1:
        return g.new_zeros((0, g.shape[2]))
    parts = [x[start:end].to(g.dtype) @ g[s] for s, (start, end) in enumerate(pairwise(ends))]
    return _scaled(torch.cat(parts), weights, rows)


def grouped_conv_weight(
    x: Tensor,
    b: Tensor,
    offsets: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Gradient of a convolution's weight from its inputs x and output gradients b, summed per segment.

    >>> x, b = torch.ones(2, 1, 3, 3), torch.ones(2, 1, 1, 1)
    >>> grouped_conv_weight(x, b, torch.tensor([0, 2]), [3, 3], [1, 1], [0, 0], [1, 1], 1)[0, 0, 0, 0]
    tensor([2., 2., 2.])
    """
    if groups < 1:
        raise ValueError(f"groups must be at least 1, not {groups}")
    if len(x) != len(b):  # which PyTorch's own derivative does not look at
        raise ValueError(f"x and b must be of the same images, not {len(x)} and {len(b)}")
    dtype = accumulation_dtype(x.dtype)
    x, b = x.to(dtype), b.to(dtype)
    shape = (b.shape[1], x.shape[1] // groups, *kernel)
    sums = [
        torch.nn.grad.conv2d_weight(x[start:end], shape, b[start:end], stride, padding, dilation, groups)
        if end > start
        else x.new_zeros(shape)
        for start, end in pairwise(ends_of(offsets, len(x)))
    ]
    return torch.stack(sums) if sums else x.new_zeros((0, *shape))


def grouped_conv(
    x: Tensor,
    g: Tensor,
    offsets: Tensor,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    adjoint: bool,
) -> Tensor:
    """Every image convolved by its segment's filters g [S, O, C / groups, *kernel], or the adjoint of that, which takes
    output gradients x to the inputs of ``size``.

    >>> x, g = torch.ones(2, 1, 2, 2), torch.tensor([[[[[3.0]]]], [[[[4.0]]]]])
    >>> grouped_conv(x, g, torch.tensor([0, 1, 2]), [2, 2], [1, 1], [0, 0], [1, 1], 1, False)[:, 0, 0, 0]
    tensor([3., 4.])
    """
    if groups < 1 or g.dim() != 5:
        raise ValueError(
            f"g must be [S, O, C / groups, kernel, kernel] with groups >= 1, not {list(g.shape)}, {groups}"
        )
    x, channels = x.to(g.dtype), groups * g.shape[2] if adjoint else g.shape[1]
    found = []
    for filters, (start, end) in zip(g, pairwise(ends_of(offsets, len(x))), strict=True):
        if end == start:
            continue
        if adjoint:
            shape = (end - start, channels, *size)
            part = torch.nn.grad.conv2d_input(shape, filters, x[start:end], stride, padding, dilation, groups)
        else:
            part = torch.nn.functional.conv2d(x[start:end], filters, None, stride, padding, dilation, groups)
        if [*part.shape[2:]] != [*size]:
            raise ValueError(f"size must be {list(part.shape[2:])}, not {size}")
        found.append(part)
    return torch.cat(found) if found else g.new_zeros((0, channels, *size))
