"""Products of gradient rows, segment against class, in plain PyTorch: ground truth, fallback and baseline.

Everywhere, a is [S, R, K], b is [C, R, K] and classes [S]; a segment of class -1 is absent: it gives zeros.
"""

import torch
from torch import Tensor

from fastdd.reference.contents import picked
from fastdd.reference.segment_mean import accumulation_dtype

# As published: added to the product of the norms.
EPS = 1e-6


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


def split_layers(flat: Tensor, rows: list[int], columns: list[int]) -> list[Tensor]:
    """Layers that lie side by side, as rows of matrices: [n, T] -> a view [n, rows, columns] of each."""
    sizes = [count * length for count, length in zip(rows, columns, strict=True)]
    parts = zip(flat.split(sizes, 1), rows, columns, strict=True)
    return [part.unflatten(1, (count, length)) for part, count, length in parts]


def gradient_match_layers(
    a: Tensor, b: Tensor, classes: Tensor, present: Tensor | None, rows: list[int], columns: list[int], metric: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distances [S] over all layers, and what their gradient needs: ``<a, b>``, ``<a, a>`` and ``<b, b>`` of the rows
    of all layers, [S, R]; with ``mse`` and ``l1`` the rows' distances, and nothing."""
    owners = classes if present is None else torch.where(present, classes, -1)
    layers = [*zip(split_layers(a, rows, columns), split_layers(b, rows, columns), strict=True)]
    none = b.new_empty(0)
    if metric in ("mse", "l1"):
        of_rows = gradient_match_distances if metric == "mse" else gradient_match_absolutes
        ab = torch.cat([of_rows(x, y, owners) for x, y in layers], 1)
        return ab.sum(1, dtype=torch.float64).to(b.dtype), ab, none, none.clone()
    products = zip(*[gradient_match_products(x, y, owners) for x, y in layers], strict=True)
    ab, aa, bb = (torch.cat(of_layers, 1) for of_layers in products)
    given = [t.double() for t in (ab, aa, bb)]
    if metric == "cos":
        given = [t.sum(1, keepdim=True) for t in given]
    total = (1 - given[0] / (given[1].sqrt() * given[2].sqrt() + EPS)).sum(1).to(b.dtype)
    return torch.where(owners >= 0, total, 0), ab, aa, bb


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
    """The gradient in b, [C, T], of the distances of :func:`gradient_match_layers` times g [S]."""
    owners = classes if present is None else torch.where(present, classes, -1)
    layers = [*zip(split_layers(a, rows, columns), split_layers(b, rows, columns), strict=True)]
    if metric == "mse":
        pulls = [gradient_match_pull((2 * g)[:, None].expand(x.shape[:2]), x, y, owners) for x, y in layers]
    elif metric == "l1":
        pulls = [gradient_match_signs(g[:, None].expand(x.shape[:2]), x, y, owners) for x, y in layers]
    else:
        given = [t.double() for t in (ab, aa, bb)]
        if metric == "cos":
            given = [t.sum(1, keepdim=True).expand(t.shape) for t in given]
        norm_a, norm_b = given[1].sqrt(), given[2].sqrt()
        below = norm_a * norm_b + EPS
        p, q = -1 / below, torch.where(norm_b == 0, 0, given[0] * norm_a / (below.square() * norm_b))
        factors = [(g[:, None] * t).to(b.dtype).split(rows, 1) for t in (p, q)]
        pulls = [gradient_match_combine(x, y, *of, owners) for x, y, of in zip(*factors, layers, strict=True)]
    return torch.cat([pull.flatten(1) for pull in pulls], 1)


def _class_sums(terms: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    owners = classes.clamp(0, max(len(b) - 1, 0))
    return torch.zeros_like(b).index_add(0, owners, present_rows(terms, classes))
