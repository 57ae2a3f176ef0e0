"""The oracles against formulas written out for groups, and what they make of a segment's weights and importance."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from fastdd import models, ops
from fastdd.bench.oracles import ORACLES, dc, dm
from fastdd.bench.oracles.segments import augment, by_class
from fastdd.core import rng
from fastdd.debias import MODES, Batch, Segments, mode

C, G, IPC, SIZE = 3, 3, 2, 8
SIZES = [9, 7, 4]
N = sum(SIZES)


def normal(name, *shape):
    return rng.normal(rng.key(0, name), torch.Size(shape).numel()).view(shape).double()


@pytest.fixture(scope="module")
def problem():
    """A network, real images, a batch whose last class lacks two groups, synthetic images, augmentation rows."""
    net = models.build("ConvNetD2", 3, C, (SIZE, SIZE), width=4, key=5).double().train()
    classes = torch.arange(C).repeat_interleave(torch.tensor(SIZES))
    groups = torch.arange(N) % G
    groups[classes == C - 1] = 1
    batch = Batch(torch.randperm(N, generator=torch.Generator().manual_seed(0)), classes, groups, C, G)
    params = ops.dsa_params(ops.DSA_STRATEGY, rng.lanes(1, C), (SIZE, SIZE), dtype=torch.float64)
    return net, normal("real", N, 3, SIZE, SIZE), batch, normal("synthetic", C * IPC, 3, SIZE, SIZE), params


def embedded(problem):
    """Of every class its real embeddings, their groups, and the synthetic mean."""
    net, real, batch, synthetic, params = problem
    for c, images in enumerate(synthetic.split(IPC)):
        rows, groups = (t[batch.classes == c] for t in (batch.rows, batch.groups))
        yield net.embed(augment(real[rows], params[c])), groups, net.embed(augment(images, params[c])).mean(0)


def group_means(embeddings, groups):
    return [embeddings[groups == g].mean(0) for g in groups.unique()]


def test_distribution_matching_of_groups(problem):
    net, real, batch, synthetic, params = problem
    fairdd, mean_of_means = 0, 0
    for embeddings, groups, own in embedded(problem):
        means = group_means(embeddings, groups)
        fairdd += sum((mean - own).square().sum() for mean in means)
        mean_of_means += (sum(means) / len(means) - own).square().sum()
    expected = {"fairdd": fairdd, "barycenter": mean_of_means}
    for name, value in expected.items():
        loss = dm.loss(net, real, mode(name).segments(batch), synthetic, params)
        torch.testing.assert_close(loss, value, rtol=1e-6, atol=0)  # weights are float32


def test_gradient_matching_toward_the_mean_of_groups(problem):
    net, real, batch, synthetic, params = problem
    expected = 0
    for c, images in enumerate(synthetic.split(IPC)):
        rows, groups = (t[batch.classes == c] for t in (batch.rows, batch.groups))
        losses = cross_entropy(net(augment(real[rows], params[c])), torch.full((SIZES[c],), c), reduction="none")
        pulling = torch.autograd.grad(torch.stack(group_means(losses, groups)).mean(), [*net.parameters()])
        loss = cross_entropy(net(augment(images, params[c])), torch.full((IPC,), c))
        expected += dc.match(torch.autograd.grad(loss, [*net.parameters()]), pulling, "ours")
    loss = dc.loss(net, real, mode("barycenter").segments(batch), synthetic, params)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["dm", "dc"])
def test_importance_and_worst_are_of_the_groups_distances(problem, name):
    net, real, batch, synthetic, params = problem
    fair = mode("fairdd").segments(batch)
    alone = torch.stack(
        [
            ORACLES[name](
                net, real, replace(fair, importance=torch.arange(C * G).eq(s).float()), synthetic, params
            ).detach()
            for s in range(C * G)
        ]
    )
    assert alone.gt(0).tolist() == fair.present.tolist()
    importance = torch.arange(C * G) / 4
    weighted = ORACLES[name](net, real, replace(fair, importance=importance), synthetic, params)
    torch.testing.assert_close(weighted, (importance * alone).sum(), rtol=1e-12, atol=0)
    worst = ORACLES[name](net, real, replace(fair, worst=G), synthetic, params)
    torch.testing.assert_close(worst, alone.view(C, G).max(1).values.sum(), rtol=1e-12, atol=0)


# Clusters of a batch need what a network sees of it; they become FairDD's segments.
@pytest.mark.parametrize("name", sorted(MODES.keys() - {"fairdd-batch"}))
def test_segments_are_read_as_they_are(problem, name):
    _, _, batch, *_ = problem
    batch = replace(batch, counts=torch.full((C, G), 5), weights=torch.rand(N) + 0.1 if name == "kde" else None)
    segments = mode(name).segments(batch)
    parts = [(c, part) for c, of_class in enumerate(by_class(segments, C, torch.float64)) for part in of_class]
    assert torch.equal(torch.cat([part.rows for _, part in parts]), segments.rows)
    assert [c for c, _ in parts] == segments.classes[segments.present].tolist()
    torch.testing.assert_close(torch.cat([p.weights for _, p in parts]).float(), segments.weights)
    assert all(abs(part.weights.sum() - 1) < 1e-15 for _, part in parts)


def test_a_class_without_samples_pulls_nothing(problem):
    net, real, _, synthetic, params = problem
    empty = Segments(
        torch.zeros(0, dtype=torch.long), torch.zeros(C + 1, dtype=torch.long), torch.zeros(0), torch.arange(C)
    )
    for name in ("dm", "dc"):
        assert ORACLES[name](net, real, empty, synthetic, params) == 0


@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
def test_the_published_distance_equals_ours(metric):
    shapes = [(8, 3, 3, 3), (8,), (4, 6, 5), (10, 32), (10,)]
    real, synthetic = ([normal(f"{side} {i}", *s) for i, s in enumerate(shapes)] for side in (0, 1))
    real[0][2] = 0  # a filter that no sample reaches
    batched = ([g[None] for g in side] for side in (real, synthetic))
    expected = ops.gradient_match(*batched, torch.tensor([0]), metric=metric)
    assert dc.match(synthetic, real, metric).item() == pytest.approx(expected.item(), rel=1e-12)
