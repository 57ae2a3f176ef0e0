"""Samples in the order of their segments: what :func:`fastdd.ops.segment_mean` takes, without a sort."""

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.reference import segment_order as reference
from fastdd.reference.contents import check_range

# More samples are compared with one another no longer, but sorted: the kernel's work grows with their square.
_MOST = 2**15


def _launch(segment: Tensor, segments: int) -> tuple[Tensor, Tensor, Tensor]:
    if len(segment) > _MOST:
        return reference.segment_order(segment, segments)
    from fastdd.kernels import segment_order as kernels

    return kernels.segment_order(segment, segments)


def _fake(segment: Tensor, segments: int) -> tuple[Tensor, Tensor, Tensor]:
    shares = segment.new_empty(segment.shape, dtype=torch.float32)
    return torch.empty_like(segment), segment.new_empty(segments + 1), shares


_ORDER = _dispatch.define(
    "segment_order(Tensor segment, SymInt segments) -> (Tensor, Tensor, Tensor)",
    reference.segment_order,
    {"cuda": "triton"},
)
_dispatch.register_triton(_ORDER, _launch)
_dispatch.register_fake(_ORDER, _fake)


@_dispatch.public
def segment_order(segment: Tensor, segments: int, *, backend: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
    """Sort samples by segment; those of a segment stay in their order.

    Args:
        segment: int64 [M], 0..segments-1, segment of each sample.
        segments: S.
        backend: ``auto``, ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto`` means.

    Returns:
        int64 [M], the samples in order; int64 [S+1], where each segment starts; float32 [M], in that order, 1 over the
        number of samples of a sample's segment.

    Raises:
        ValueError: another shape or type; on CPUs, a segment that there is not.
        RuntimeError: a backend asked for by name that can't run here.

    Deterministic. On GPUs one launch, which compares samples with one another (up to 32,768, above it a sort); nothing
    waits for the device.

    >>> segment_order(torch.tensor([1, 0, 1]), 3)
    (tensor([1, 0, 2]), tensor([0, 1, 3, 3]), tensor([1.0000, 0.5000, 0.5000]))
    """
    if segment.dtype != torch.int64 or segment.dim() != 1:
        raise ValueError(f"segment must be int64 [M], not {segment.dtype} {list(segment.shape)}")
    if segments < 0:
        raise ValueError(f"segments must be a number of segments, not {segments}")
    check_range("segment", segment, 0, segments)
    chosen = _dispatch.choose("segment_order", backend, segment.device)
    if chosen == "reference":
        return reference.segment_order(segment, segments)
    if chosen == "interpret":
        return _launch(segment, segments)
    return torch.ops.fastdd.segment_order(segment, segments)
