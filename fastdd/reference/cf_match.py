"""Empirical characteristic functions of segments of rows, in plain PyTorch: ground truth, fallback and baseline."""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from fastdd.core import rng
from fastdd.reference.contents import check_range, ends_of
from fastdd.reference.segment_mean import accumulation_dtype, segment_shares

# Phases at a time.
_ELEMENTS = 2**22


def cf_means(x: Tensor, t: Tensor, offsets: Tensor, weights: Tensor | None, classes: Tensor) -> Tensor:
    """``out[s, k] = sum w_i exp(i t[c, k] . x_i) / sum w_i`` over the rows of segment s, of class c; 0 for no weight.

    Args:
        x: [N, D].
        t: [C, K, D], of x's accumulation dtype, or [1, K, D] for all classes.
        offsets, weights, classes: as those of :func:`fastdd.ops.cf_match.cf_match`.

    Returns:
        [S, K, 2], real and imaginary parts.

    >>> x, t = torch.tensor([[0.0], [math.pi]]), torch.tensor([[[1.0]]])
    >>> cf_means(x, t, torch.tensor([0, 1, 2]), None, torch.tensor([0, 0]))[:, :, 0]
    tensor([[ 1.],
            [-1.]])
    """
    parts = []
    for rows, frequencies, shares in _segments(x, t, offsets, weights, classes):
        of_some = []
        for some in frequencies.split(_at_once(rows)):
            phases = rows @ some.t()
            of_some.append(torch.stack([shares @ phases.cos(), shares @ phases.sin()], 1))
        parts.append(torch.cat(of_some) if of_some else t.new_zeros(0, 2))
    return torch.stack(parts) if parts else t.new_zeros(0, t.shape[1], 2)


def cf_pull(g: Tensor, x: Tensor, t: Tensor, offsets: Tensor, weights: Tensor | None, classes: Tensor) -> Tensor:
    """The adjoint: the gradient in x, [N, D], of something whose gradient in the means is g, [S, K, 2].

    ``out[i] = w_i / sum w * sum over k of (g[s, k, 1] cos p - g[s, k, 0] sin p) t[c, k]``, with p = t[c, k] . x_i.
    """
    parts = []
    for (rows, frequencies, shares), of_means in zip(_segments(x, t, offsets, weights, classes), g, strict=True):
        total = torch.zeros_like(rows)
        at_once = _at_once(rows)
        for some, of_some in zip(frequencies.split(at_once), of_means.split(at_once), strict=True):
            phases = rows @ some.t()
            total += (phases.cos() * of_some[:, 1] - phases.sin() * of_some[:, 0]) @ some
        parts.append(shares[:, None] * total)
    return torch.cat(parts) if parts else t.new_zeros(0, x.shape[1])


def cf_frequencies(keys: Tensor, n: int) -> Tensor:
    """float32 [C, n], standard normal, two from every 64 bits of a key's draws (Box and Muller)."""
    bits = rng.bits(keys, (n + 1) // 2)
    high, low = (bits >> 32) & 0xFFFFFFFF, bits & 0xFFFFFFFF
    radius = torch.sqrt(-2 * torch.log((high.float() + 0.5) * 2.0**-32).clamp(max=0))
    angle = (low >> 8).float() * (2 * math.pi * 2.0**-24)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten(-2)[..., :n].contiguous()


def _segments(
    x: Tensor, t: Tensor, offsets: Tensor, weights: Tensor | None, classes: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of every segment its rows, its class's frequencies, and its rows' shares of its weight."""
    dtype = accumulation_dtype(x.dtype)
    _, shares, _ = segment_shares(offsets, weights, x.shape[0], dtype)
    if t.shape[0] != 1:
        check_range("classes", classes, 0, t.shape[0])
    ends = ends_of(offsets, x.shape[0])
    for (start, end), c in zip(pairwise(ends), classes.tolist(), strict=True):
        yield x[start:end].to(dtype), t[c if t.shape[0] != 1 else 0], shares[start:end]


def _at_once(rows: Tensor) -> int:
    return max(1, _ELEMENTS // max(1, rows.shape[0]))
