"""Clusters as groups: agreement with true colours, noise, determinism, bad settings."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from fastdd.debias.density.clusters import pseudo_groups


@pytest.mark.parametrize("method", ["kmeans", "dbscan"])
def test_clusters_are_the_colours(digits, weighed, method):
    """Also within every class, where 95 % are of one colour and guessing that one would score 0."""
    data, embeddings = digits, weighed.embeddings
    groups, number = pseudo_groups(embeddings, data.train.labels, method=method)
    assert groups.dtype == np.int64
    assert set(groups) == set(range(number))
    assert number == 10
    for label in range(10):
        own = data.train.labels == label
        assert adjusted_rand_score(data.train.groups[own], groups[own]) > 0.95


def test_by_class_misses_them(digits, weighed):
    """Why all images together are the default."""
    data, embeddings = digits, weighed.embeddings
    groups, number = pseudo_groups(embeddings, data.train.labels, per_class=True, num_groups=4)
    assert number == 4
    assert adjusted_rand_score(data.train.groups, groups) < 0.3


def test_noise_goes_to_the_nearest_cluster():
    x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2], [3.0], [2.0]])
    groups, number = pseudo_groups(x, np.zeros(8, np.int64), method="dbscan", eps=0.3, min_samples=3)
    assert groups.tolist() == [0, 0, 0, 1, 1, 1, 1, 0]
    assert number == 2


def test_all_noise_is_one_group():
    groups, number = pseudo_groups(np.arange(4.0)[:, None], np.zeros(4, np.int64), method="dbscan", eps=0.1)
    assert (groups.tolist(), number) == ([0] * 4, 1)


def test_per_class_numbers_start_anew():
    x = np.array([[0.0], [9.0], [100.0], [109.0]])
    groups, number = pseudo_groups(x, np.array([0, 0, 1, 1]), num_groups=2, per_class=True)
    assert number == 2
    assert sorted(groups[:2]) == sorted(groups[2:]) == [0, 1]


def test_a_function_of_the_seed_that_leaves_the_global_generator(digits, weighed):
    data, embeddings = digits, weighed.embeddings
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = (pseudo_groups(embeddings, data.train.labels, seed=3)[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "spectral"}, "unknown clustering method 'spectral'; one of: kmeans, dbscan"),
        ({"num_groups": 0}, "num_groups must be at least 1, not 0"),
        ({"num_groups": 5}, "5 groups are more than the 4 images"),
        ({"num_groups": 3, "per_class": True}, "3 groups are more than the 2 images"),
        ({"eps": 0.0}, "eps must be finite and above 0, not 0.0"),
        ({"min_samples": 0}, "min_samples must be at least 1, not 0"),
    ],
)
def test_bad_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        pseudo_groups(np.zeros((4, 2)), np.array([0, 0, 1, 1]), **wrong)


def test_embeddings_that_do_not_fit():
    with pytest.raises(ValueError, match=r"embeddings must be \[3, D\]"):
        pseudo_groups(np.zeros((4, 2)), np.zeros(3, np.int64))
