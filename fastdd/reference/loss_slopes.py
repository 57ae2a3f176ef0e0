"""Gradients of segments' mean cross-entropies in the logits, in plain PyTorch: ground truth and fallback."""

import torch
from torch import Tensor

from fastdd.reference.contents import check_range
from fastdd.reference.segment_mean import accumulation_dtype, segment_spread


def _shares(logits: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    """w_i over its segment's total, [N, 1]."""
    ones = logits.new_ones((offsets.shape[0] - 1, 1), dtype=accumulation_dtype(logits.dtype))
    return segment_spread(ones, offsets, weights, len(logits))


def loss_slopes(logits: Tensor, labels: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    """:func:`fastdd.ops.loss_slopes`."""
    if labels.shape != logits.shape[:1] or logits.dim() != 2:
        raise ValueError(f"labels must be [N] for logits [N, C], not {list(labels.shape)} and {list(logits.shape)}")
    check_range("labels", labels, 0, logits.shape[1])
    shares = _shares(logits, offsets, weights)
    columns = torch.arange(logits.shape[1], device=logits.device)
    of_labels = (labels[:, None] == columns).to(shares.dtype)
    return (shares * (logits.to(shares.dtype).softmax(1) - of_labels)).to(logits.dtype)


def loss_slopes_pull(h: Tensor, logits: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    """h times the derivative of :func:`loss_slopes`: ``share_i p (h - <p, h>)`` with p the probabilities of a row."""
    if h.shape != logits.shape:
        raise ValueError(f"h must be {list(logits.shape)} as the logits are, not {list(h.shape)}")
    shares = _shares(logits, offsets, weights)
    p, wide = logits.to(shares.dtype).softmax(1), h.to(shares.dtype)
    return (shares * p * (wide - (p * wide).sum(1, keepdim=True))).to(logits.dtype)
