"""Segments as a Python loop reads them, class by class."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdd.debias import Segments
from fastdd.reference import augment as reference


@dataclass(frozen=True)
class Segment:
    """Real samples whose weighted mean a class is pulled toward.

    Attributes:
        rows: int64 [n], n > 0, rows of the real images.
        weights: [n], which sum to 1.
        importance: factor of the segment's distance.
    """

    rows: Tensor
    weights: Tensor
    importance: float


def by_class(segments: Segments, num_classes: int, dtype: torch.dtype) -> list[list[Segment]]:
    """Of every class its segments that are not empty, in order; weights have ``dtype``, and are normalised in it."""
    classes: list[list[Segment]] = [[] for _ in range(num_classes)]
    importance = torch.ones(len(segments.classes)) if segments.importance is None else segments.importance
    lengths = segments.offsets.diff().tolist()
    pieces = zip(segments.rows.split(lengths), segments.weights.to(dtype).split(lengths), strict=True)
    for (rows, weights), label, factor in zip(pieces, segments.classes.tolist(), importance.tolist(), strict=True):
        if len(rows):
            classes[label].append(Segment(rows, weights / weights.sum(), factor))
    return classes


def class_loss(of_class: list[Segment], distances: list[Tensor], worst: bool) -> Tensor:
    """The loss of a class from the distance of each of its segments: their weighted sum, or the worst of them."""
    weighted = torch.stack([part.importance * distance for part, distance in zip(of_class, distances, strict=True)])
    return weighted.max() if worst else weighted.sum()


def augment(images: Tensor, row: Tensor) -> Tensor:
    """``images`` under one row of augmentation parameters (:class:`fastdd.ops.Param`), in their dtype."""
    return reference.augment(images, row[None])
