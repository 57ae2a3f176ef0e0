"""The evaluation protocol against a literal loop, and what it reports."""

import pytest
import torch
from torch import nn

from fastdd import models, rng
from fastdd.data import DeviceImages, load
from fastdd.evaluation import Protocol, evaluate
from fastdd.evaluation.protocol import _train
from fastdd.session import random_set


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


def test_training_is_the_published_schedule(digits):
    """epochs + 1 epochs; after epoch epochs // 2 + 1 a tenth of the rate and a new optimiser, so no momentum."""
    subset = random_set(digits, 3)
    protocol = Protocol(epochs=5, batch=8, dsa_strategy="none")
    nets = [models.build("ConvNetD2", 3, 10, (16, 16), width=8, key=1) for _ in range(2)]
    _train(nets[0], DeviceImages(subset.images), subset.labels, protocol, (0, "test", 0))

    net = nets[1]
    rate = 0.01
    sgd = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    for epoch in range(6):
        for rows in rng.permutation(rng.key(0, "test", 0, epoch), 30).split(8):
            loss = nn.CrossEntropyLoss()(net(subset.images[rows]), subset.labels[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        if epoch in [5 // 2 + 1]:
            rate *= 0.1
            sgd = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    for ours, literal in zip(nets[0].parameters(), net.parameters(), strict=True):
        assert torch.equal(ours, literal)


def test_counts_are_those_of_plain_predictions(digits):
    subset = random_set(digits, 5)
    protocol = Protocol(epochs=3)
    made = evaluate(
        DeviceImages(subset.images), subset.labels, digits, width=8, depth=2, nets=2, protocol=protocol, seed=3
    )
    net = models.build("ConvNet", 3, 10, (16, 16), width=8, depth=2, key=rng.key(3, "evaluation-net", 1))
    _train(net, DeviceImages(subset.images), subset.labels, protocol, (3, "evaluation", 1))
    pixels = (torch.from_numpy(digits.test.images).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        right = (net(pixels).argmax(1) == torch.from_numpy(digits.test.labels)).float()
    # One image in 5,000 may flip where two logits are equal to rounding.
    assert abs(made.metrics()[1].accuracy - 100 * right.mean().item()) <= 0.04
    assert made.counts[1].total.sum() == 5000
    summary = made.summary()
    values = [run.accuracy for run in made.metrics()]
    assert summary["accuracy"]["mean"] == pytest.approx(sum(values) / 2)
    assert summary["accuracy"]["std"] == pytest.approx(abs(values[0] - values[1]) / 2)


def test_deterministic_and_seeded(digits):
    subset = random_set(digits, 2)

    def run(seed):
        return evaluate(
            DeviceImages(subset.images),
            subset.labels,
            digits,
            width=8,
            depth=2,
            nets=1,
            protocol=Protocol(epochs=2),
            seed=seed,
        ).counts[0]

    assert torch.equal(run(0).right, run(0).right)
    assert not torch.equal(run(0).right, run(1).right)


def test_learns(digits):
    """On unbiased digits a small network is far above chance."""
    unbiased = load("c-digits", bias_ratio=0.1)
    images = DeviceImages.of(unbiased.train.images, unbiased.mean, unbiased.std)
    labels = torch.from_numpy(unbiased.train.labels)
    protocol = Protocol(epochs=8, batch=64, dsa_strategy="none")
    made = evaluate(images, labels, unbiased, width=16, depth=2, nets=1, protocol=protocol)
    assert made.metrics()[0].accuracy > 70


def test_bad_settings(digits):
    subset = random_set(digits, 1)
    with pytest.raises(ValueError, match="nets must be at least 1, not 0"):
        evaluate(DeviceImages(subset.images), subset.labels, digits, nets=0)
    with pytest.raises(ValueError, match="epochs must be at least 1, not 0"):
        Protocol(epochs=0)
    with pytest.raises(ValueError, match="flop"):
        Protocol(dsa_strategy="flop")
