"""Weighted segments of real data: the only thing that a matching method knows about bias."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Real samples drawn for one step, class by class.

    Attributes:
        rows: int64 [M], rows of the data set, class-major.
        classes: int64 [M], class of each sample; non-decreasing.
        groups: int64 [M], protected group of each sample.
        num_classes: C.
        num_groups: G.
    """

    rows: Tensor
    classes: Tensor
    groups: Tensor
    num_classes: int
    num_groups: int


@dataclass(frozen=True)
class Segments:
    """Real samples sorted by segment, with weights: targets are weighted means of a signal over segments.

        t[s] = sum over i in offsets[s] .. offsets[s+1] of weights[i] * signal(x[rows[i]])

    The number of segments is the same at every step, whatever was drawn, so nothing has to wait for the device: a
    group that the batch lacks is an empty segment. For example, two classes, groups {0, 1}, FairDD, and a batch with
    classes 0 0 0 1 1 and groups 0 1 0 0 0 give segments (0,0) (0,1) (1,0) (1,1), offsets 0 2 3 5 5 and weights
    1/2 1/2 1 1/2 1/2.

    Attributes:
        rows: int64 [M], rows of the data set, sorted by segment; classes stay together.
        offsets: int64 [S+1], where each segment starts (CSR).
        weights: float32 [M]; they sum to 1 over every segment that is not empty.
        classes: int64 [S], class of each segment; non-decreasing.
    """

    rows: Tensor
    offsets: Tensor
    weights: Tensor
    classes: Tensor

    @property
    def present(self) -> Tensor:
        """bool [S]: segments that have samples."""
        return self.offsets[1:] > self.offsets[:-1]

    @property
    def sample_classes(self) -> Tensor:
        """int64 [M], class of each sample."""
        return self.classes.repeat_interleave(self.offsets.diff(), output_size=len(self.rows))


def uniform_segments(batch: Batch, segment: Tensor, classes: Tensor) -> Segments:
    """Segments with equal weights within each.

    Args:
        batch: M samples.
        segment: int64 [M], segment of each sample.
        classes: int64 [S], class of each segment.
    """
    order = torch.argsort(segment, stable=True)
    counts = torch.zeros_like(classes).scatter_add_(0, segment, torch.ones_like(segment))
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Segments(batch.rows[order], offsets, 1.0 / counts[segment[order]].to(torch.float32), classes)
