"""Products of gradient rows, segment against class, in plain PyTorch: ground truth, fallback and baseline.

Everywhere, a is [S, R, K], b is [C, R, K] and classes [S]; a segment of class -1 is absent: it gives zeros.
"""

import torch
from torch import Tensor

from fastdd.reference.contents import picked
from fastdd.reference.segment_mean import accumulation_dtype


def rows_of(b: Tensor, classes: Tensor) -> Tensor:
    """Every segment's rows of its class: [C, ...] -> [S, ...]; zeros for an absent segment.

    >>> rows_of(torch.tensor([1.0, 2.0]), torch.tensor([1, -1, 0]))
    tensor([2., 0., 1.])
    """
    present = (classes >= 0).view(-1, *[1] * (b.dim() - 1))
    return torch.where(present, picked("classes", b, classes.clamp(min=0)), 0).contiguous()


def present_rows(a: Tensor, classes: Tensor) -> Tensor:
    """a in the dtype of sums, contiguous (the order of sums depends on it), with zeros for the absent segments."""
    return torch.where((classes >= 0)[:, None, None], a, 0).to(accumulation_dtype(a.dtype)).contiguous()


def gradient_match_products(a: Tensor, b: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``<a, b>``, ``<a, a>`` and ``<b, b>`` of every segment's rows, each [S, R].

    >>> a, b = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 2.0]]])
    >>> gradient_match_products(a, b, torch.tensor([0]))
    (tensor([[11.]]), tensor([[25.]]), tensor([[5.]]))
    """
    a, b = present_rows(a, classes), rows_of(b, classes)
    return (a * b).sum(2), a.square().sum(2), b.square().sum(2)


def gradient_match_combine(p: Tensor, q: Tensor, a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """``out[c] = sum of p[s] a[s] + q[s] b[c]`` over the segments s of class c, with p and q [S, R]; [C, R, K]."""
    terms = p[..., None] * present_rows(a, classes) + q[..., None] * rows_of(b, classes)
    return _class_sums(terms, b, classes)


def gradient_match_distances(a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """``|a - b|^2`` of every segment's rows, [S, R].

    >>> gradient_match_distances(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 2.0]]]), torch.tensor([0]))
    tensor([[8.]])
    """
    return (present_rows(a, classes) - rows_of(b, classes)).square().sum(2)


def gradient_match_pull(p: Tensor, a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """``out[c] = sum of p[s] (b[c] - a[s])`` over the segments s of class c, with p [S, R]; [C, R, K]."""
    return _class_sums(p[..., None] * (rows_of(b, classes) - present_rows(a, classes)), b, classes)


def gradient_match_absolutes(a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """``|a - b|``, summed over every segment's rows, [S, R].

    >>> gradient_match_absolutes(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 5.0]]]), torch.tensor([0]))
    tensor([[3.]])
    """
    return (present_rows(a, classes) - rows_of(b, classes)).abs().sum(2)


def gradient_match_signs(p: Tensor, a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """``out[c] = sum of p[s] sign(b[c] - a[s])`` over the segments s of class c, with p [S, R]; [C, R, K]."""
    return _class_sums(p[..., None] * (rows_of(b, classes) - present_rows(a, classes)).sign(), b, classes)


def _class_sums(terms: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    owners = classes.clamp(0, max(len(b) - 1, 0))
    return torch.zeros_like(b).index_add(0, owners, present_rows(terms, classes))
