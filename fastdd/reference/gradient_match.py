"""Products of gradient rows, segment against class, in plain PyTorch: ground truth, fallback and baseline.

Everywhere, a is [S, R, K], b is [C, R, K] and classes [S]; a segment of class -1 is absent: it gives zeros.
"""

import torch
from torch import Tensor

from fastdd.reference.segment_mean import accumulation_dtype


def rows_of(b: Tensor, classes: Tensor) -> Tensor:
    """Every segment's rows of its class: [C, ...] -> [S, ...]; zeros for an absent segment.

    >>> rows_of(torch.tensor([1.0, 2.0]), torch.tensor([1, -1, 0]))
    tensor([2., 0., 1.])
    """
    present = (classes >= 0).view(-1, *[1] * (b.dim() - 1))
    return torch.where(present, b[classes.clamp(min=0)], 0)


def _real(a: Tensor, classes: Tensor) -> Tensor:
    return torch.where((classes >= 0)[:, None, None], a, 0).to(accumulation_dtype(a.dtype))


def row_products(a: Tensor, b: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``<a, b>``, ``<a, a>`` and ``<b, b>`` of every segment's rows, each [S, R].

    >>> a, b = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 2.0]]])
    >>> row_products(a, b, torch.tensor([0]))
    (tensor([[11.]]), tensor([[25.]]), tensor([[5.]]))
    """
    a, b = _real(a, classes), rows_of(b, classes)
    return (a * b).sum(2), a.square().sum(2), b.square().sum(2)


def row_combine(p: Tensor, q: Tensor, a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """``out[c] = sum of p[s] a[s] + q[s] b[c]`` over the segments s of class c, with p and q [S, R]; [C, R, K]."""
    terms = p[..., None] * _real(a, classes) + q[..., None] * rows_of(b, classes)
    return _class_sums(terms, b, classes)


def row_distances(a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """``|a - b|^2`` of every segment's rows, [S, R].

    >>> row_distances(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 2.0]]]), torch.tensor([0]))
    tensor([[8.]])
    """
    return (_real(a, classes) - rows_of(b, classes)).square().sum(2)


def row_pull(p: Tensor, a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """``out[c] = sum of p[s] (b[c] - a[s])`` over the segments s of class c, with p [S, R]; [C, R, K]."""
    return _class_sums(p[..., None] * (rows_of(b, classes) - _real(a, classes)), b, classes)


def _class_sums(terms: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    present = (classes >= 0)[:, None, None]
    return torch.zeros_like(b).index_add(0, classes.clamp(min=0), torch.where(present, terms, 0))
