"""The evaluation protocol: what it reports, learned sets, bad settings."""

import pytest
import torch

import fastdd
from fastdd import models
from fastdd.core import rng
from fastdd.data import DeviceImages, SyntheticSet, Zca, load
from fastdd.data.initial import random_set
from fastdd.evaluation import Protocol, evaluate
from fastdd.evaluation.protocol import train


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


@pytest.fixture(scope="module")
def zca(digits):
    return Zca.fit(digits.train.images)


def test_summaries_are_over_networks(digits):
    subset = random_set(digits, 5)
    protocol = Protocol(epochs=3)
    made = evaluate(
        DeviceImages(subset.images), subset.labels, digits, width=8, depth=2, nets=2, protocol=protocol, seed=3
    )
    summary = made.summary()
    values = [run.accuracy for run in made.metrics()]
    assert summary["accuracy"]["mean"] == pytest.approx(sum(values) / 2)
    assert summary["accuracy"]["std"] == pytest.approx(abs(values[0] - values[1]) / 2)
    # Two runs: their distance to the mean is the standard error; Student's t of one degree of freedom at 97.5 %.
    assert summary["accuracy"]["interval"] == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-5)


def test_soft_labels_are_cross_entropy_with_probabilities(digits):
    subset = random_set(digits, 3)
    soft = torch.rand(30, 10, generator=torch.Generator().manual_seed(0)).softmax(1)
    protocol = Protocol(epochs=2, batch=8, dsa_strategy="none")
    nets = [models.build("ConvNetD2", 3, 10, (16, 16), width=8, key=1) for _ in range(2)]
    train(nets[0], DeviceImages(subset.images), soft, protocol, (0, "test", 0))

    rate = 0.01
    sgd = torch.optim.SGD(nets[1].parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    for epoch in range(3):
        for rows in rng.permutation(rng.key(0, "test", 0, epoch), 30).split(8):
            loss = -(soft[rows] * nets[1](subset.images[rows]).log_softmax(1)).sum() / len(rows)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    for ours, literal in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(ours, literal, rtol=1e-5, atol=1e-6)


def test_whitened_sets_are_tested_on_whitened_images(digits, zca):
    subset = random_set(digits, 5, zca=zca)
    protocol = Protocol(epochs=3)
    made = evaluate(
        DeviceImages(subset.images), subset.labels, digits, width=8, depth=2, nets=1, protocol=protocol, zca=zca
    )
    net = models.build("ConvNet", 3, 10, (16, 16), width=8, depth=2, key=rng.key(0, "evaluation-net", 0))
    train(net, DeviceImages(subset.images), subset.labels, protocol, (0, "evaluation", 0))
    flat = torch.from_numpy(digits.test.images).flatten(1).double() / 255
    whitened = ((flat - zca.mean.double()) @ zca.matrix.double()).float().view(digits.test.images.shape)
    with torch.no_grad():
        right = (net(whitened).argmax(1) == torch.from_numpy(digits.test.labels)).float()
    assert abs(made.metrics()[0].accuracy - 100 * right.mean().item()) <= 0.04


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
    for rate in (0.0, -0.01, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"the networks' learning rate must be positive, not {rate}"):
            Protocol(learning_rate=rate)
    with pytest.raises(ValueError, match=r"soft labels of shape \[10, 9\] do not fit the 10 classes of c-digits"):
        evaluate(DeviceImages(subset.images), torch.full((10, 9), 1 / 9), digits)
    with pytest.raises(ValueError, match="ZCA was fitted on 3"):
        evaluate(DeviceImages(subset.images), subset.labels, digits, zca=Zca(torch.zeros(3), torch.eye(3)))


SMALL = {"nets": 1, "epochs": 2, "arch": "ConvNet", "width": 8, "depth": 2}


class TestLearnedSets:
    """:func:`fastdd.evaluate` of what trajectory matching makes."""

    @pytest.fixture
    def learned(self, digits, zca):
        made = random_set(digits, 5, zca=zca)
        soft = (0.9 * torch.eye(10) + 0.01)[made.labels]
        return SyntheticSet(made.images, made.labels, made.metadata, learning_rate=0.05, soft_labels=soft, zca=zca)

    def test_its_step_size_soft_labels_and_zca_are_used(self, digits, learned):
        made = fastdd.evaluate(learned, digits, **SMALL)
        assert made.protocol.learning_rate == 0.05
        protocol = Protocol(epochs=2, learning_rate=0.05)
        expected = evaluate(
            DeviceImages(learned.images),
            learned.soft_labels,
            digits,
            width=8,
            depth=2,
            nets=1,
            protocol=protocol,
            zca=learned.zca,
        )
        assert torch.equal(made.counts[0].right, expected.counts[0].right)
        learned.soft_labels = None
        assert not torch.equal(made.counts[0].right, fastdd.evaluate(learned, digits, **SMALL).counts[0].right)

    def test_another_step_size_can_be_given(self, digits, learned):
        assert fastdd.evaluate(learned, digits, learning_rate=0.02, **SMALL).protocol.learning_rate == 0.02
        learned.learning_rate = None
        assert fastdd.evaluate(learned, digits, **SMALL).protocol.learning_rate == 0.01
        made = fastdd.evaluate("random", digits, ipc=1, learning_rate=0.02, **SMALL)
        assert made.protocol.learning_rate == 0.02

    @pytest.mark.parametrize("rate", [-0.003, 0.0])
    def test_a_step_size_with_which_nothing_trains_is_told(self, digits, learned, rate):
        learned.learning_rate = rate
        with pytest.raises(ValueError, match=f"learned step size is {rate:g}, with which nothing trains; give another"):
            fastdd.evaluate(learned, digits, **SMALL)
        assert fastdd.evaluate(learned, digits, learning_rate=0.01, **SMALL).protocol.learning_rate == 0.01


class TestImagesThatHoldSeveral:
    """:func:`fastdd.evaluate` of multi-formation."""

    @pytest.fixture
    @staticmethod
    def several(digits):
        start = random_set(digits, 2)
        return SyntheticSet(start.images, start.labels, start.metadata | {"formation": 2})

    def test_networks_are_trained_on_what_they_hold(self, digits, several):
        counts = [fastdd.evaluate(made, digits, **SMALL).counts[0].right for made in (several, several.decoded())]
        assert torch.equal(*counts)
        stored = SyntheticSet(several.images, several.labels, several.metadata | {"formation": 1})
        assert not torch.equal(counts[0], fastdd.evaluate(stored, digits, **SMALL).counts[0].right)

    def test_a_factor_is_the_sets_own(self, digits, several):
        assert fastdd.evaluate(several, digits, factor=2, **SMALL).counts
        with pytest.raises(ValueError, match="hold 2 x 2 each: factor 3 is not theirs"):
            fastdd.evaluate(several, digits, factor=3, **SMALL)
        with pytest.raises(ValueError, match="hold 1 x 1 each: factor 2 is not theirs"):
            fastdd.evaluate("random", digits, ipc=1, factor=2, **SMALL)
