"""Clusters of a batch as groups, against clusters that anyone sees."""

import pytest
import torch

from fastdd.debias import Batch, mode


def batch(embeddings, classes):
    rows = torch.arange(len(classes))
    groups = torch.zeros(len(classes), dtype=torch.int64)
    return Batch(rows, torch.tensor(classes), groups, 2, 1, embeddings=torch.tensor(embeddings))


def line(start, count):
    return [[start + 0.01 * i, 0.0] for i in range(count)]


def test_clusters_of_every_class_are_segments_that_weigh_alike():
    # Class 0: 12 images in one place, 5 in another, 1 alone and nearer to these. Class 1: all in one place.
    values = [*line(0, 12), *line(5, 5), [8.0, 0.0], *line(2, 6)]
    segments = mode("fairdd-batch").segments(batch(values, [0] * 18 + [1] * 6))
    assert segments.classes.tolist() == [0, 0, 1, 1]
    assert segments.offsets.tolist() == [0, 12, 18, 24, 24]
    assert segments.rows.tolist() == list(range(24))
    sums = torch.segment_reduce(segments.weights, "sum", offsets=segments.offsets, initial=0)
    assert sums.tolist() == pytest.approx([1, 1, 1, 0])


def test_what_cannot_be_clustered_is_one_cluster():
    for values in ([[0.0], [1.0], [9.0]], [[1.0]] * 8):
        count = len(values)
        segments = mode("fairdd-batch").segments(batch(values * 2, [0] * count + [1] * count))
        assert segments.offsets.tolist() == [0, count, 2 * count]
    with pytest.raises(ValueError, match="what a network sees"):
        mode("fairdd-batch").segments(Batch(*[torch.zeros(1, dtype=torch.int64)] * 3, 1, 1))
