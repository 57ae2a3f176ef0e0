"""1 / density as a detector of bias-conflicting images."""

import numpy as np
import pytest

from fastdd.debias.density.kde import kde_weights, rarity


def test_auc_by_hand():
    # Class 0: conflicting images have ranks 2 and 4 of 5 from the most common on: (1 + 2) of 2 * 3 pairs.
    density = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 7.0, 7.0, 7.0])
    groups = np.array([0, 1, 0, 1, 0, 2, 2, 0])
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    found = rarity(np.log(density), labels, groups)
    assert found.auc == pytest.approx([3 / 6, 0.5])  # ties count half
    assert found.conflicting.tolist() == [False, True, False, True, False, False, False, True]
    assert np.exp(found.nats[:5]) == pytest.approx(3 / density[:5])


def test_only_images_of_a_class_are_compared():
    log_density = np.array([0.0, -1.0, 50.0, 49.0])
    found = rarity(log_density, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert found.auc == [1.0, 1.0]
    assert found.nats == pytest.approx([-0.5, 0.5, -0.5, 0.5])


def test_separated_clusters_are_told_apart_without_fail():
    random = np.random.default_rng(1)
    conflicting = np.arange(200) % 20 == 0
    z = 0.05 * random.normal(size=(200, 4)) + np.where(conflicting, 1.0, 0.0)[:, None]
    made = kde_weights(z, np.zeros(200, np.int64), variance=0.01)
    assert rarity(made.log_density, np.zeros(200, np.int64), conflicting.astype(np.int64)).auc == [1.0]


def test_what_is_not_known_is_none():
    assert rarity(np.zeros(2), np.zeros(2, np.int64)).auc is None
    assert rarity(np.zeros(3), np.array([0, 2, 2]), np.zeros(3, np.int64)).auc == [None, None, None]
