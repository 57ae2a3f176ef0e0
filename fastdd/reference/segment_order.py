"""Samples in the order of their segments, in plain PyTorch: ground truth and fallback."""

import torch
from torch import Tensor


def segment_order(segment: Tensor, segments: int) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`fastdd.ops.segment_order`."""
    order = torch.argsort(segment, stable=True)
    counts = segment.new_zeros(segments).scatter_add_(0, segment, torch.ones_like(segment))
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return order, offsets, 1.0 / counts[segment[order]].to(torch.float32)
