"""Draws: which real images a step sees."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fastdd.data import Dataset, Sampler
from fastdd.debias import Batch

SAMPLINGS = Literal["random", "stratified", "weighted"]


@dataclass(frozen=True)
class RealSamples:
    """What is known of the real images, on the device where they are looked up, so that draws wait for no other.

    Attributes:
        labels, groups: int64 [N].
        weights: float [N], of debias modes that need them.
        num_classes, num_groups: C and G.
    """

    labels: Tensor
    groups: Tensor
    weights: Tensor | None
    num_classes: int
    num_groups: int

    @classmethod
    def of(cls, dataset: Dataset, weights: Tensor | None, device: torch.device) -> "RealSamples":
        """Of a data set's training images."""
        labels, groups = (
            torch.as_tensor(values, device=device) for values in (dataset.train.labels, dataset.train.groups)
        )
        weights = None if weights is None else weights.to(device)
        return cls(labels, groups, weights, dataset.num_classes, dataset.num_groups)

    def sampler(self, batch: int, sampling: str) -> Sampler:
        """Draws ``batch`` images of every class."""
        return Sampler(
            self.labels,
            self.groups,
            self.num_classes,
            self.num_groups,
            batch,
            mode=sampling,
            weights=self.weights,
            device=self.labels.device,
        )


class Draws:
    """Batches of ``batch_real`` images of some classes: at random, evenly over groups, or in proportion to weights.

    Args:
        samples: the real images.
        counts: int64 [C, G], of every class and group in the whole data set.
        classes: those to draw from; the batch's classes count from the first.
        batch: images a class.
        sampling: random, stratified or weighted; what was drawn in proportion to weights counts alike.
    """

    def __init__(self, samples: RealSamples, counts: Tensor, classes: range, batch: int, sampling: str):
        self._samples, self._counts, self._classes = samples, counts, classes
        self._sampler = samples.sampler(batch, sampling).part(classes.start, classes.stop)
        self._of_rows = self._sampler.classes - classes.start
        self._weights = None if sampling == "weighted" else samples.weights

    def batch(self, key: int | Tensor, net: nn.Module) -> Batch:
        """The batch of a key. These draws do not look at the network, ``net``, that is about to see it."""
        return self.of_rows(self._sampler.draw(key), self._of_rows)

    def of_rows(self, rows: Tensor, classes: Tensor) -> Batch:
        """The batch of some rows, chosen otherwise, and their classes, ascending, counted from the first."""
        return Batch(
            rows,
            classes,
            self._samples.groups[rows],
            len(self._classes),
            self._samples.num_groups,
            self._counts,
            None if self._weights is None else self._weights[rows],
        )
