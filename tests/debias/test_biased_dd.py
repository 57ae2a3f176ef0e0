"""Biased DD: its minimum by hand, FairDD's at one lambda, that of the conflicting images at another."""

import dataclasses

import numpy as np
import pytest
import torch

import fastdd
from fastdd.data.initial import random_set
from fastdd.debias import Batch, mode
from fastdd.methods import METHODS, Context, configure


def batch(groups, counts, factor=None):
    classes = torch.zeros(len(groups), dtype=torch.int64)
    rows = torch.arange(len(groups))
    return Batch(rows, classes, torch.tensor(groups), 1, len(counts), torch.tensor([counts]), aligned_factor=factor)


def minimum(segments, signal):
    """Of the sum of squared distances: importances weigh the means of segments."""
    means = torch.stack(
        [
            (segments.weights[a:b, None] * signal[segments.rows[a:b]]).sum(0)
            for a, b in zip(segments.offsets[:-1], segments.offsets[1:], strict=True)
        ]
    )
    assert segments.importance.sum().item() == pytest.approx(1, abs=1e-5)  # the step size of vanilla matching
    return (segments.importance[:, None] * means).sum(0)


def test_the_minimum_is_fairdds_or_that_of_the_conflicting_images():
    groups = [2] * 14 + [0] * 3 + [1] * 3  # r = 0.7 of three groups, the others even
    signal = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    of_groups = torch.stack([signal[14:17].mean(0), signal[17:].mean(0), signal[:14].mean(0)])
    counts = [3, 3, 14]
    fair = minimum(mode("biased-dd").segments(batch(groups, counts)), signal)
    torch.testing.assert_close(fair, of_groups.mean(0), rtol=0, atol=1e-6)
    given = minimum(mode("biased-dd").segments(batch(groups, counts, (0.7 * 3 - 1) / 2)), signal)
    torch.testing.assert_close(given, fair, rtol=0, atol=1e-6)
    conflicting = minimum(mode("biased-dd").segments(batch(groups, counts, 0.7)), signal)
    torch.testing.assert_close(conflicting, signal[14:].mean(0), rtol=0, atol=1e-6)
    none = minimum(mode("biased-dd").segments(batch(groups, counts, 0.0)), signal)
    torch.testing.assert_close(none, signal.mean(0), rtol=0, atol=1e-6)


def test_a_class_of_one_group_is_left_alone():
    segments = mode("biased-dd").segments(batch([0, 0], [2, 0]))
    assert segments.importance.tolist() == [1, 0]
    assert segments.offsets.tolist() == [0, 2, 4]


def test_aligned_images_are_in_both_segments_of_their_class():
    classes, groups = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 0, 1, 0, 1])
    counts = torch.tensor([[1, 2], [3, 1]])
    segments = mode("biased-dd").segments(Batch(torch.arange(10, 15), classes, groups, 2, 2, counts))
    assert segments.rows.tolist() == [10, 11, 12, 10, 12, 13, 14, 13]
    assert segments.offsets.tolist() == [0, 3, 5, 7, 8]
    assert segments.sample_classes.tolist() == [0] * 5 + [1] * 3


def test_the_gradient_is_in_proportion_to_fairdds():
    """DM's first step on whole classes with even groups: FairDD's gradient is G times."""
    data = fastdd.data.load("c-digits")
    train = data.train
    rows = np.concatenate([np.flatnonzero(train.labels == label)[:27] for label in range(10)])
    groups = np.tile(np.repeat([0, 1, 2, 3], [18, 3, 3, 3]), 10)  # 18 aligned images a class, and 3 of each other group
    few = dataclasses.replace(train, images=train.images[rows], labels=train.labels[rows], groups=groups)
    data = dataclasses.replace(data, train=few)
    found = {}
    for debias in ("biased-dd", "fairdd"):
        usual = {"ipc": 2, "iterations": 1, "batch_real": 27, "width": 8, "depth": 2, "momentum": 0.0}
        config = configure(dataset="c-digits", debias=debias, **usual)
        method = METHODS["dm"](config, Context(data, torch.device("cpu"), random_set(data, 2).images))
        method.step(0)
        found[debias] = method.momentum
    assert (4 * found["biased-dd"] - found["fairdd"]).norm() / found["fairdd"].norm() < 5e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"debias": "biased-dd", "aligned_factor": 1.0}, "aligned_factor must be below 1"),
        ({"debias": "fairdd", "aligned_factor": 0.5}, "aligned_factor is for debias biased-dd, not fairdd"),
    ],
)
def test_bad_factors_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        configure(dataset="c-digits", ipc=1, method="dm", **settings)
