"""Weights of the loss: by hand, with the mean 1 in every class, each group alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdd.debias.loss_weights import loss_weights

LABELS = np.array([0, 0, 0, 0, 1, 1, 1])
GROUPS = np.array([0, 0, 0, 1, 2, 2, 2])


def test_fairdd_by_hand():
    # Class 0: 4 images, 2 groups of 3 and 1: 4 / (2 * 3) and 4 / (2 * 1). Class 1: one group.
    assert loss_weights("fairdd", LABELS, GROUPS).tolist() == pytest.approx([2 / 3] * 3 + [2] + [1] * 3)


def test_kde_by_hand():
    weights = np.array([1, 1, 1, 5, 0, 0.25, 0.75], np.float32)
    assert loss_weights("kde", LABELS, GROUPS, weights).tolist() == pytest.approx([0.5, 0.5, 0.5, 2.5, 0, 0.75, 2.25])
    # Only ratios within a class count.
    scaled = weights * np.array([7] * 4 + [0.1] * 3, np.float32)
    assert loss_weights("kde", LABELS, GROUPS, scaled) == pytest.approx(loss_weights("kde", LABELS, GROUPS, weights))


def test_none_has_no_weights():
    assert loss_weights("none", LABELS, GROUPS) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.floats(0.01, 100)), min_size=1, max_size=60))
def test_means_and_group_sums(rows):
    labels, groups = (np.array([row[i] for row in rows]) for i in (0, 1))
    for mode, given_weights in (("fairdd", None), ("kde", np.array([row[2] for row in rows]))):
        weights = loss_weights(mode, labels, groups, given_weights)
        assert weights.dtype == np.float32
        for label in np.unique(labels):
            own = labels == label
            assert weights[own].mean() == pytest.approx(1, rel=1e-5)
            if mode == "fairdd":
                sums = [weights[own & (groups == group)].sum() for group in np.unique(groups[own])]
                assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "weights", "message"),
    [
        ("fairdd-iw", None, "can't be trained with debias 'fairdd-iw'; one of: none, fairdd, kde"),
        ("kde", None, "debias=kde takes weights of the training images"),
        ("fairdd", np.ones(7), "debias=fairdd takes no weights"),
        ("kde", np.ones(6), "weights must be numbers"),
        ("kde", np.array([1, 1, 1, 1, 0, 0, 0]), "all weights of class 1 are 0"),
    ],
)
def test_bad_input(mode, weights, message):
    with pytest.raises(ValueError, match=message):
        loss_weights(mode, LABELS, GROUPS, weights)
