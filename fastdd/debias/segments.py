"""Weighted segments of real data: the only thing that a matching method knows about bias."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastdd import ops


@dataclass(frozen=True)
class Batch:
    """Real samples drawn for one step, class by class.

    Attributes:
        rows: int64 [M], rows of the data set, class-major.
        classes: int64 [M], class of each sample; non-decreasing.
        groups: int64 [M], protected group of each sample.
        num_classes: C.
        num_groups: G.
        counts: int64 [C, G], images of every class and group in the whole data set; for modes that ask how large a
            group is.
        weights: float32 [M], above 0: how much each sample counts within its class; only their ratios matter. None
            where samples have no weights, or were drawn in proportion to them.
        embeddings: float [M, D], of the samples without augmentation, by the network that is about to match them; None
            where the mode does not look at them.
        aligned_factor: lambda of biased-dd; None: by which the minimum is FairDD's.
    """

    rows: Tensor
    classes: Tensor
    groups: Tensor
    num_classes: int
    num_groups: int
    counts: Tensor | None = None
    weights: Tensor | None = None
    embeddings: Tensor | None = None
    aligned_factor: float | None = None


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
        importance: float32 [S], the factor of each segment's distance, which may be negative; None: 1 for all.
        worst: segments of a class, where only that with the largest distance counts; 0: all count.
        of_samples: int64 [M], class of each sample, where it is known already.
    """

    rows: Tensor
    offsets: Tensor
    weights: Tensor
    classes: Tensor
    importance: Tensor | None = None
    worst: int = 0
    of_samples: Tensor | None = None

    @property
    def present(self) -> Tensor:
        """bool [S]: segments that have samples."""
        return self.offsets[1:] > self.offsets[:-1]

    @property
    def sample_classes(self) -> Tensor:
        """int64 [M], class of each sample."""
        if self.of_samples is not None:
            return self.of_samples
        return self.classes.repeat_interleave(self.offsets.diff(), output_size=len(self.rows))

    def part(self, first: int, last: int) -> "Segments":
        """The segments ``first`` .. ``last - 1`` by themselves; waits for the device."""
        start, end = self.offsets[[first, last]].tolist()
        return replace(
            self,
            rows=self.rows[start:end],
            offsets=self.offsets[first : last + 1] - start,
            weights=self.weights[start:end],
            classes=self.classes[first:last],
            importance=None if self.importance is None else self.importance[first:last],
            of_samples=None,
        )

    def to(self, device: torch.device) -> "Segments":
        """On another device, but for ``rows``, which stay where images are looked up."""
        return replace(
            self,
            offsets=self.offsets.to(device),
            weights=self.weights.to(device),
            classes=self.classes.to(device),
            importance=None if self.importance is None else self.importance.to(device),
            of_samples=None if self.of_samples is None else self.of_samples.to(device),
        )

    def by_classes(self, num_classes: int, at_once: int) -> "Iterator[tuple[int, int, Segments]]":
        """Consecutive classes ``first .. last - 1``, with their segments, whose classes then count from 0.

        Args:
            num_classes: C; every class must have the same number of segments.
            at_once: classes at a time. With all of them at once nothing waits for the device.
        """
        if at_once >= num_classes:
            yield 0, num_classes, self
            return
        per_class = len(self.classes) // num_classes
        for first in range(0, num_classes, at_once):
            last = min(first + at_once, num_classes)
            some = self.part(first * per_class, last * per_class)
            yield first, last, replace(some, classes=some.classes - first)

    def total(self, distances: Tensor) -> Tensor:
        """A method's loss from its distance of every segment, [S] -> scalar: their weighted sum, or that of the worst.

        >>> segments = Segments(*[torch.zeros(4)] * 3, classes=torch.tensor([0, 0, 1, 1]), worst=2)
        >>> segments.total(torch.tensor([1.0, 3.0, 2.0, 0.0]))
        tensor(5.)
        """
        if self.importance is not None:
            distances = distances * self.importance.to(distances.dtype)
        if self.worst:
            distances = distances.view(-1, self.worst).amax(1)
        return distances.sum()


def segments_by(batch: Batch, segment: Tensor, classes: Tensor) -> Segments:
    """Segments of given samples, each sample with its share of the segment: 1/n, or in proportion to its weight.

    Args:
        batch: M samples.
        segment: int64 [M], segment of each sample.
        classes: int64 [S], class of each segment; non-decreasing, so that samples of a class stay together.
    """
    order, offsets, weights = ops.segment_order(segment, len(classes))
    if batch.weights is not None:
        # Sums without atomics, of every segment by itself: the same bits in every run, whatever the other classes.
        given = batch.weights[order].double()
        sums = torch.segment_reduce(given, "sum", offsets=offsets, unsafe=True, initial=0)
        weights = (given / sums[segment[order]]).to(torch.float32)
    return Segments(batch.rows[order], offsets, weights, classes, of_samples=batch.classes)
