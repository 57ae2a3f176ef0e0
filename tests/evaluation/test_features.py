"""Features: silhouettes of points of which it is known how far they are apart, and the plane."""

import numpy as np
import pytest
import torch
from torch import nn

from fastdd import models
from fastdd.evaluation.features import features_of, in_plane, silhouette
from fastdd.training.dfa import Disentangled
from fastdd.training.dfr import LastLayer


def clusters(apart):
    """60 points of deviation 1 in 8 dimensions, in three clusters; [60] their number, and another that is in none."""
    random = np.random.default_rng(0)
    number = np.repeat(np.arange(3), 20)
    points = random.normal(size=(60, 8)) + apart * np.eye(8)[number]
    return points.astype(np.float32), number, np.tile(np.arange(2), 30)


def test_silhouettes_of_clusters():
    points, number, other = clusters(apart=100.0)
    assert silhouette(points, number) > 0.95
    assert abs(silhouette(points, other)) < 0.05
    near, _, _ = clusters(apart=0.0)
    assert abs(silhouette(near, number)) < 0.05
    # Of every point a = 9, b = (0 + 9) / 2.
    assert silhouette(np.array([[0.0], [0.0], [9.0], [9.0]]), np.array([0, 1, 0, 1])) == -0.5


def test_a_silhouette_by_hand():
    # Of 0: a = 2, b = (6 + 8) / 2. Of 2: a = 2, b = 5. Of 6: a = 2, b = 5. Of 8: a = 2, b = 7.
    expected = (5 / 7 + 3 / 5 + 3 / 5 + 5 / 7) / 4
    assert silhouette(np.array([[0.0], [2.0], [6.0], [8.0]]), np.array([1, 1, 4, 4])) == pytest.approx(expected)


def test_no_silhouette_where_nothing_can_be_apart():
    assert silhouette(np.zeros((3, 2)), np.array([1, 1, 1])) is None
    assert silhouette(np.zeros((3, 2)), np.array([0, 1, 2])) is None


@pytest.mark.parametrize("projection", ["pca", "tsne"])
def test_clusters_that_are_far_apart_stay_so_in_the_plane(projection):
    points, number, _ = clusters(apart=100.0)
    plane = in_plane(points, projection)
    assert plane.shape == (60, 2)
    assert silhouette(plane, number) > 0.6
    assert np.array_equal(plane, in_plane(points, projection))


def test_features_are_what_the_last_layer_sees():
    def net(key):
        return models.build("ConvNet", 1, 3, (8, 8), width=4, depth=1, key=key)

    one, size = net(1), net(1).embedding_dim
    both = Disentangled(net(1), net(2), nn.Linear(2 * size, 3))
    fitted = LastLayer(net(1), torch.ones(3, size), torch.zeros(3))
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(one.classifier(torch.from_numpy(features_of(one, images))), one(images), atol=1e-5)
        assert torch.allclose(both.head(torch.from_numpy(features_of(both, images))), both(images), atol=1e-5)
        assert np.linalg.norm(features_of(fitted, images), axis=1) == pytest.approx(np.ones(5), abs=1e-5)
