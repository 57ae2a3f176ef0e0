"""Accuracy, DEO_M, DEO_A, WA and BA against hand-derived values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastdd.evaluation import GroupCounts, interval


def counts(right, total):
    return GroupCounts(torch.tensor(right), torch.tensor(total))


def test_hand_derived():
    made = counts([[100, 50, 0], [80, 60, 70]], [[100, 100, 100], [100, 100, 100]]).metrics()
    assert made.accuracy == pytest.approx(60)
    assert made.deo_m == pytest.approx(100)  # class 0: 100 - 0
    assert made.deo_a == pytest.approx((100 + 20) / 2)
    assert made.wa == pytest.approx(0)
    assert made.ba == pytest.approx(60)


def test_pairwise():
    made = counts([[100, 50, 0], [80, 60, 70]], [[100, 100, 100], [100, 100, 100]]).metrics("pairwise")
    assert made.deo_m == pytest.approx(100)
    assert made.deo_a == pytest.approx(((50 + 100 + 50) / 3 + (20 + 10 + 10) / 3) / 2)


def test_one_group_right_nine_wrong_separates_the_definitions():
    """Published DEO_A of C-MNIST is 99.96: only max - min can give that; pairs give at most 55.6."""
    right = torch.zeros(10, 10, dtype=torch.int64).fill_diagonal_(98)
    made = GroupCounts(right, torch.full((10, 10), 98))
    assert made.metrics().deo_a == pytest.approx(100)
    assert made.metrics("pairwise").deo_a == pytest.approx(20)


def test_empty_cells_are_excluded():
    made = counts([[9, 0], [3, 5]], [[10, 0], [10, 10]]).metrics()
    assert made.accuracy == pytest.approx(100 * 17 / 30)
    assert made.deo_m == pytest.approx(20)
    assert made.deo_a == pytest.approx(20)  # class 0 has one group: no gap
    assert made.wa == pytest.approx(30)
    assert made.ba == pytest.approx((90 + 30 + 50) / 3)


def test_without_groups_deo_is_undefined():
    made = counts([[9], [5]], [[10], [10]]).metrics()
    assert math.isnan(made.deo_m)
    assert math.isnan(made.deo_a)
    assert made.accuracy == made.ba == pytest.approx(70)


@given(st.data(), st.integers(1, 5), st.integers(1, 4), st.integers(1, 60))
def test_counting_against_a_loop(data, num_classes, num_groups, n):
    draw = lambda high: data.draw(st.lists(st.integers(0, high - 1), min_size=n, max_size=n))  # noqa: E731
    predictions, labels, groups = draw(num_classes), draw(num_classes), draw(num_groups)
    made = GroupCounts.of(
        torch.tensor(predictions), torch.tensor(labels), torch.tensor(groups), num_classes, num_groups
    )
    for y in range(num_classes):
        for g in range(num_groups):
            cell = [i for i in range(n) if labels[i] == y and groups[i] == g]
            assert made.total[y, g] == len(cell)
            assert made.right[y, g] == sum(predictions[i] == y for i in cell)
    figures = made.metrics()
    assert 0 <= figures.wa <= figures.ba <= 100
    if not math.isnan(figures.deo_m):
        assert 0 <= figures.deo_a <= figures.deo_m + 1e-9


def test_unknown_definition():
    with pytest.raises(ValueError, match="unknown DEO definition 'mean'"):
        counts([[1]], [[1]]).metrics("mean")


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    inside = [abs(row.mean()) <= interval(row.std(), 5) for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)
    assert interval(1.0, 1) is None
