"""k-means, by both backends."""

import numpy as np
import pytest
import torch
from sklearn.cluster import kmeans_plusplus

from fastdd.ops import _faiss
from fastdd.ops.kmeans import greedy_start, kmeans

needs_faiss = pytest.mark.skipif(bool(_faiss.missing("cpu")), reason="faiss is not installed")
backends = pytest.mark.parametrize("backend", [pytest.param("faiss", marks=needs_faiss), "sklearn"])


def blobs(clusters, each, dimensions=16):
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(clusters, 1, dimensions, generator=generator)
    return (centres + torch.randn(clusters, each, dimensions, generator=generator)).flatten(0, 1)


def inertia(x, centroids):
    return torch.cdist(x.double(), centroids.double()).min(1).values.square().sum()


@needs_faiss
@pytest.mark.parametrize(("x", "clusters"), [(blobs(12, 40), 12), (blobs(12, 40), 5), (blobs(3, 50), 60)])
def test_inertia_is_that_of_scikit_learn(x, clusters):
    for seed in range(3):
        found, other = (inertia(x, kmeans(x, clusters, seed, backend=backend)) for backend in ("faiss", "sklearn"))
        assert found <= 1.01 * other


@pytest.mark.parametrize("away", [0.0, 1000.0])
@pytest.mark.parametrize("clusters", [1, 2, 40])
def test_where_it_begins_is_where_scikit_learn_does(clusters, away):
    """Of float64 rows: float32 distances of rows far from zero would be noise in scikit-learn too."""
    rows = (blobs(12, 20) + away).numpy()
    for seed in range(5):
        _, expected = kmeans_plusplus(rows.astype(np.float64), clusters, random_state=seed)
        assert greedy_start(rows, clusters, seed).tolist() == expected.tolist()


def test_rows_that_are_all_the_same_can_begin():
    assert len(greedy_start(np.ones((5, 2), np.float32), 3, 0)) == 3


@backends
def test_centroids_are_the_means_of_what_is_nearest_to_them(backend):
    x = blobs(8, 30)
    centroids = kmeans(x, 8, 3, backend=backend)
    owners = torch.cdist(x, centroids).argmin(1)
    means = torch.stack([x[owners == cluster].mean(0) for cluster in range(8)])
    torch.testing.assert_close(centroids, means, rtol=0, atol=1e-4)


@backends
def test_more_rows_than_faiss_would_take_all_count(backend):
    """Its own limit is 256 a cluster."""
    x = torch.cat([torch.zeros(900, 1), torch.ones(100, 1)])
    torch.testing.assert_close(kmeans(x, 1, 0, backend=backend), torch.tensor([[0.1]]))


@backends
def test_the_seed_decides(backend):
    x = torch.randn(300, 4)
    assert torch.equal(kmeans(x, 9, 5, backend=backend), kmeans(x, 9, 5 + 2**31, backend=backend))
    assert not torch.equal(kmeans(x, 9, 5, backend=backend), kmeans(x, 9, 6, backend=backend))


@backends
def test_a_cluster_a_row_is_the_rows(backend):
    x = torch.randn(5, 3)
    found = kmeans(x, 5, 0, backend=backend)
    assert torch.equal(found, x)
    assert found.data_ptr() != x.data_ptr()


def test_one_line_for_what_cannot_be(monkeypatch):
    x = torch.randn(5, 3)
    for arguments, message in (
        ((x, 6, 0), "6 clusters of 5 rows"),
        ((x, 0, 0), "0 clusters"),
        ((x[:0], 1, 0), "0 rows"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            kmeans(*arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="unknown backend 'cuml'"):
        kmeans(x, 2, 0, backend="cuml")
    monkeypatch.setattr(_faiss, "missing", lambda device: "faiss is not installed: pip install 'fastdd[cpu]'")
    with pytest.raises(RuntimeError, match="pip install"):
        kmeans(x, 2, 0, backend="faiss")
    assert torch.equal(kmeans(x, 2, 0), kmeans(x, 2, 0, backend="sklearn"))
