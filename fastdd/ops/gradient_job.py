"""Samples in segments, the gradients of whose losses are asked for: what :mod:`fastdd.ops.group_grad` works on."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.ops.loss_slopes import loss_slopes
from fastdd.ops.segment_mean import segment_mean, segment_spread
from fastdd.reference.contents import check_range
from fastdd.reference.segment_mean import accumulation_dtype


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every sample, [N]; ValueError for a label that is no column of the logits.

    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor([1.3863, 1.3863])
    """
    if labels.dtype == torch.int64:
        check_range("labels", labels, 0, logits.shape[1])
    return F.cross_entropy(logits, labels, reduction="none")


def _shares(weights: Tensor | None, offsets: Tensor, n: int, dtype: torch.dtype, backend: str) -> Tensor:
    """w_i over its segment's total, [N]; zero where that is zero. Differentiable in the weights, without atomics."""
    w = torch.ones(n, dtype=dtype, device=offsets.device) if weights is None else weights.to(dtype)
    if not w.requires_grad:
        ones = w.new_ones((offsets.shape[0] - 1, 1))
        return segment_spread(ones, offsets, weights, n, backend=backend)[:, 0]
    # segment_mean is the total over the count, and spread divides by the count once more.
    counts = offsets.diff()[:, None].to(dtype)
    means = segment_mean(w[:, None], offsets, backend=backend)
    totals = segment_spread(means * counts.square(), offsets, None, n, backend=backend)[:, 0]
    return torch.where(totals == 0, 0, w / torch.where(totals == 0, 1, totals))


@dataclass(frozen=True)
class Job:
    """What both methods work on: the network holds ``leaves`` while they do."""

    net: nn.Module
    leaves: dict[str, Tensor]
    images: Tensor
    labels: Tensor
    weights: Tensor | None
    offsets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    create_graph: bool
    chunk: int
    backend: str

    @functools.cached_property
    def shares(self) -> Tensor:
        """[N], of its segment, of every sample."""
        dtype = accumulation_dtype(self.images.dtype)
        return _shares(self.weights, self.offsets, len(self.images), dtype, self.backend)

    def root(self, part: slice) -> tuple[Tensor, Tensor | None]:
        """Where a backward pass over some samples begins: the logits and their gradient, or the :meth:`value`."""
        whole = part == slice(0, len(self.images))
        constant = self.weights is None or not self.weights.requires_grad
        if not (whole and constant and self.loss is cross_entropy and self.labels.dtype == torch.int64):
            return self.value(part), None
        logits = self.net(self.images)
        if logits.dim() != 2 or not logits.requires_grad:
            return self._weighted(logits, self.labels, part), None
        return logits, loss_slopes(logits, self.labels, self.offsets, self.weights, backend=self.backend)

    def value(self, part: slice) -> Tensor:
        """Sum of some samples' losses, each times its share of its segment."""
        return self._weighted(self.net(self.images[part]), self.labels[part], part)

    def _weighted(self, logits: Tensor, labels: Tensor, part: slice) -> Tensor:
        losses = self.loss(logits, labels)
        if losses.shape != labels.shape[:1]:
            raise ValueError(
                f"loss must return one value a sample, [{len(labels)}], not {list(losses.shape)}: use reduction='none'"
            )
        if not losses.requires_grad:
            raise RuntimeError("the loss does not depend on the network's parameters: is there a no_grad in net?")
        return (self.shares[part] * losses).sum()
