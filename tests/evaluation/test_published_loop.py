"""Evaluation against the published loop, written out: the same numbers for the same draws, and, for draws of its own,
the same distribution."""

from collections.abc import Callable, Iterator

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from fastdd import models, ops
from fastdd.bench.baselines import published
from fastdd.core import rng
from fastdd.data import DeviceImages, load
from fastdd.data.initial import random_set
from fastdd.evaluation import PROTOCOLS, Protocol, evaluate
from fastdd.evaluation.protocol import train
from fastdd.methods.parts.training import train_epoch

WIDTH, DEPTH = 8, 2
# Two logits of a test image that are as close as this may change places by rounding.
TIE = 1e-5


def literal(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    orders: Iterator[Tensor],
    rate: float = 0.01,
    momentum: float = 0.9,
    decay: float = 5e-4,
    batch: int = 256,
    more: int = 1,
    falls_after: int | None = None,
    restarts: bool = True,
    augment: Callable[[Tensor], Tensor] = lambda x: x,
) -> None:
    """Train as the published code does; what is given besides the first line of options makes another protocol."""
    falls_after = epochs // 2 + 1 if falls_after is None else falls_after

    def optimiser():
        return torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum, weight_decay=decay)

    sgd = optimiser()
    net.train()
    for epoch in range(epochs + more):
        for rows in next(orders).split(batch):
            loss = nn.CrossEntropyLoss()(net(augment(images[rows])), labels[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        if epoch in [falls_after]:
            rate *= 0.1
            if restarts:
                sgd = optimiser()
            sgd.param_groups[0]["lr"] = rate


def network(key: int) -> nn.Module:
    return models.build("ConvNet", 3, 10, (16, 16), width=WIDTH, depth=DEPTH, key=key)


def parameters(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


class TestGivenDraws:
    """Our orders, no augmentation; 300 images, so that an epoch is two batches of 256."""

    EPOCHS, KEY = 4, (3, "evaluation", 0)

    @pytest.fixture(scope="class")
    @classmethod
    def subset(cls, digits):
        return random_set(digits, 30)

    @staticmethod
    def start():
        return network(rng.key(3, "evaluation-net", 0))

    def orders(self):
        return (rng.permutation(rng.key(*self.KEY, epoch), 300) for epoch in range(100))

    def trained(self, subset, **other):
        net = self.start()
        literal(net, subset.images, subset.labels, **{"epochs": self.EPOCHS, "orders": self.orders(), **other})
        return net

    def ours(self, subset, **settings):
        net = self.start()
        protocol = Protocol(epochs=self.EPOCHS, dsa_strategy="none", **settings)
        train(net, DeviceImages(subset.images), subset.labels, protocol, self.KEY)
        return parameters(net)

    @pytest.mark.parametrize("rate", [0.01, 0.03])
    @pytest.mark.parametrize("batch", [256, 7])
    def test_the_parameters_are_those_of_the_loop(self, subset, rate, batch):
        expected = parameters(self.trained(subset, rate=rate, batch=batch))
        assert torch.equal(self.ours(subset, learning_rate=rate, batch=batch), expected)

    @pytest.mark.parametrize(
        "other",
        [
            {"restarts": False},
            {"decay": 0.0},
            {"more": 0},
            {"falls_after": EPOCHS // 2},
            {"falls_after": EPOCHS},
            {"momentum": 0.8},
            {"batch": 300},
        ],
        ids=lambda other: "{}={}".format(*next(iter(other.items()))),
    )
    def test_every_detail_of_it_shows(self, subset, other):
        ours, moved = self.ours(subset), parameters(self.trained(subset, **other))
        assert (ours - moved).norm() > 1e-3 * (ours - parameters(self.start())).norm()

    def test_right_predictions_are_counted_for_every_class_and_group(self, digits, subset):
        protocol = Protocol(epochs=self.EPOCHS, dsa_strategy="none")
        images = DeviceImages(subset.images)
        made = evaluate(
            images, subset.labels, digits, width=WIDTH, depth=DEPTH, nets=1, protocol=protocol, seed=self.KEY[0]
        )
        net = self.trained(subset).eval()
        test = digits.test
        with torch.no_grad():
            logits = net((torch.from_numpy(test.images).float() / 255 - 0.5) / 0.5)
        best = logits.topk(2).values
        right, total, tied = (torch.zeros(10, 10, dtype=torch.int64) for _ in range(3))
        for i, (label, group) in enumerate(zip(test.labels.tolist(), test.groups.tolist(), strict=True)):
            total[label, group] += 1
            right[label, group] += int(logits[i].argmax() == label)
            tied[label, group] += int(best[i, 0] - best[i, 1] < TIE)
        assert torch.equal(made.counts[0].total, total)
        assert ((made.counts[0].right - right).abs() <= tied).all()
        assert tied.sum() <= 5


def mixed_batches(
    images: Tensor, key: tuple, strategy: str, batch: int, cutmix: float
) -> Iterator[tuple[Tensor, Tensor, ops.CutMix | None]]:
    """Rows, augmented images and what they are mixed with, as drawn, of an epoch."""
    seed, stream, *counters = key
    for number, rows in enumerate(rng.permutation(rng.key(*key), len(images)).split(batch)):
        params = ops.idc_params(strategy, rng.lanes(rng.key(*key, number), len(rows)), (16, 16), shared_op=True)
        mixed = ops.cutmix(rng.key(seed, f"{stream}-cutmix", *counters, number), len(rows), (16, 16), cutmix)
        yield rows, ops.augment_passes(images[rows], params), mixed


def mixed_loss(net: nn.Module, x: Tensor, labels: Tensor, weights: Tensor, mixed: ops.CutMix | None) -> Tensor:
    """CutMix as published: parts of other images of the batch are pasted, and both labels count by their area."""
    criterion = nn.CrossEntropyLoss(reduction="none")
    if mixed is None:
        return (weights * criterion(net(x), labels)).mean()
    top, left, bottom, right = mixed.rectangle
    pasted = x.clone()
    for i, other in enumerate(mixed.order.tolist()):
        pasted[i, :, top:bottom, left:right] = x[other, :, top:bottom, left:right]
    ratio = 1 - (bottom - top) * (right - left) / (16 * 16)
    logits, others = net(pasted), labels[mixed.order]
    of_others = (weights[mixed.order] * criterion(logits, others)).mean()
    return (weights * criterion(logits, labels)).mean() * ratio + of_others * (1.0 - ratio)


class TestIdc:
    """IDC's training, written out in float64: our orders, parameters and rectangles, 150 images in batches of 64."""

    KEY, STRATEGY = (5, "evaluation", 0), "color_crop_flip_scale_rotate"

    @pytest.fixture(scope="class")
    @classmethod
    def subset(cls, digits):
        made = random_set(digits, 15)
        return made.images.double(), made.labels

    @staticmethod
    def start():
        return network(3).double()

    def literal(self, subset, epochs, *, cutmix=0.5, gamma=0.2, momentum=0.9, more=0, weights=None):
        (images, labels), net = subset, self.start()
        weights = torch.ones(len(labels)).double() if weights is None else weights
        sgd = torch.optim.SGD(net.parameters(), 0.01, momentum=momentum, weight_decay=5e-4)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(sgd, [2 * epochs // 3, 5 * epochs // 6], gamma)
        net.train()
        for epoch in range(epochs + more):
            for rows, x, mixed in mixed_batches(images, (*self.KEY, epoch), self.STRATEGY, 64, cutmix):
                loss = mixed_loss(net, x, labels[rows], weights[rows], mixed)
                sgd.zero_grad()
                loss.backward()
                sgd.step()
            scheduler.step()
        return parameters(net)

    def ours(self, subset, epochs, **settings):
        (images, labels), net = subset, self.start()
        published = PROTOCOLS["idc"]
        strategy, cutmix = published.augmentation("cifar10", 2)
        assert strategy == self.STRATEGY
        protocol = Protocol(epochs=epochs, dsa_strategy=strategy, cutmix=cutmix, **published.training, **settings)
        train(net, DeviceImages(images), labels, protocol, self.KEY)
        return parameters(net)

    @pytest.mark.parametrize("epochs", [1, 2, 4, 6])
    def test_the_parameters_are_those_of_the_loop(self, subset, epochs):
        ours, expected = self.ours(subset, epochs), self.literal(subset, epochs)
        assert (ours - expected).norm() <= 1e-10 * (expected - parameters(self.start())).norm()

    @pytest.mark.parametrize(
        "other",
        [{"cutmix": 0.0}, {"cutmix": 1.0}, {"gamma": 0.1}, {"momentum": 0.8}, {"more": 1}],
        ids=lambda other: "{}={}".format(*next(iter(other.items()))),
    )
    def test_every_detail_of_it_shows(self, subset, other):
        ours, moved = self.ours(subset, 4), self.literal(subset, 4, **other)
        assert (ours - moved).norm() > 1e-3 * (ours - parameters(self.start())).norm()

    def test_weights_of_images_are_those_of_both_labels(self, subset):
        (images, labels), net = subset, self.start()
        weights = torch.linspace(0.5, 1.5, len(labels)).double()
        sgd = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
        for epoch in range(2):
            train_epoch(
                net,
                DeviceImages(images),
                labels,
                sgd,
                batch=64,
                dsa_strategy=self.STRATEGY,
                composition="idc",
                cutmix=0.5,
                key=(*self.KEY, epoch),
                weights=weights,
            )
        expected = self.literal(subset, 2, gamma=1.0, weights=weights)
        assert (parameters(net) - expected).norm() <= 1e-10 * (expected - parameters(self.start())).norm()


class TestNcfm:
    """NCFM's loop with our draws, in float64: AdamW with PyTorch's defaults, a rate that is halved four times."""

    KEY, STRATEGY = (5, "evaluation", 0), "color_crop_flip_scale_rotate"

    @pytest.fixture(scope="class")
    @classmethod
    def subset(cls, digits):
        made = random_set(digits, 15)
        return made.images.double(), made.labels

    def literal(self, subset, epochs, *, decay=0.01, gamma=0.5, rate=0.001, batch=128):
        (images, labels), net = subset, network(3).double()
        adamw = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)
        milestones = [epochs // 5, 2 * epochs // 5, 3 * epochs // 5, 4 * epochs // 5]
        scheduler = torch.optim.lr_scheduler.MultiStepLR(adamw, milestones, gamma)
        ones = torch.ones(len(labels)).double()
        net.train()
        for epoch in range(epochs):
            for rows, x, mixed in mixed_batches(images, (*self.KEY, epoch), self.STRATEGY, batch, 0.5):
                loss = mixed_loss(net, x, labels[rows], ones[rows], mixed)
                adamw.zero_grad()
                loss.backward()
                adamw.step()
            scheduler.step()
        return parameters(net)

    def ours(self, subset, epochs):
        (images, labels), net, published = subset, network(3).double(), PROTOCOLS["ncfm"]
        strategy, cutmix = published.augmentation("cifar10", 2)
        assert (strategy, cutmix) == (self.STRATEGY, 0.5)
        protocol = Protocol(
            epochs=epochs,
            learning_rate=published.learning_rate,
            dsa_strategy=strategy,
            cutmix=cutmix,
            **published.training,
        )
        train(net, DeviceImages(images), labels, protocol, self.KEY)
        return parameters(net)

    @pytest.mark.parametrize("epochs", [1, 5])
    def test_the_parameters_are_those_of_the_loop(self, subset, epochs):
        ours, expected = self.ours(subset, epochs), self.literal(subset, epochs)
        assert (ours - expected).norm() <= 1e-10 * (expected - parameters(network(3).double())).norm()

    @pytest.mark.parametrize("other", [{"decay": 0.0}, {"gamma": 1.0}, {"rate": 0.01}, {"batch": 64}])
    def test_every_detail_of_it_shows(self, subset, other):
        ours, moved = self.ours(subset, 5), self.literal(subset, 5, **other)
        assert (ours - moved).norm() > 1e-4 * (ours - parameters(network(3).double())).norm()


@pytest.mark.full
class TestOwnDraws:
    """Initialisations, orders and augmentations of its own, from torch's generator: eight networks a side.

    Compared are the accuracy, how far the parameters moved and the logarithm of the loss on the training images, by
    Welch's test. Below 1e-4 for one of the three would come once in 3,000 choices of the seeds. Accuracies of eight
    networks tell apart what is ten points apart only; the other two vary by 2 and 5 % over networks. Weight decay and
    the new optimiser move nothing by as much in so few epochs: those are for given draws, above.
    """

    NETS, EPOCHS, STRATEGY, ALARM = 8, 40, "color_crop_cutout_scale_rotate", 1e-4

    @pytest.fixture(scope="class")
    @classmethod
    def subset(cls, digits):
        return random_set(digits, 10)

    @staticmethod
    def figures(net, start, subset, digits):
        net.eval()
        with torch.no_grad():
            guesses = net((torch.from_numpy(digits.test.images).float() / 255 - 0.5) / 0.5).argmax(1)
            loss = nn.CrossEntropyLoss()(net(subset.images), subset.labels)
        accuracy = (guesses == torch.from_numpy(digits.test.labels)).double().mean()
        return [accuracy.item(), (parameters(net) - start).norm().item(), loss.log().item()]

    @pytest.fixture(scope="class")
    @classmethod
    def ours(cls, digits, subset):
        protocol = Protocol(epochs=cls.EPOCHS, dsa_strategy=cls.STRATEGY)
        rows = []
        for number in range(cls.NETS):
            net = network(rng.key(0, "evaluation-net", number))
            start = parameters(net)
            train(net, DeviceImages(subset.images), subset.labels, protocol, (0, "evaluation", number))
            rows.append(cls.figures(net, start, subset, digits))
        return rows

    def literal(self, digits, subset, seed, strategy=STRATEGY, **other):
        def augment(x):
            rows, operation = published.draw_each(strategy, len(x), digits.size)
            return published.augment(x, rows, operation)

        rows = []
        for number in range(self.NETS):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + number)
                net = network(0)
                for module in net.modules():
                    if hasattr(module, "reset_parameters"):
                        module.reset_parameters()
                start = parameters(net)
                orders = (torch.randperm(100) for _ in range(100))
                literal(
                    net,
                    subset.images,
                    subset.labels,
                    **{"epochs": self.EPOCHS, "orders": orders, "augment": augment, **other},
                )
            rows.append(self.figures(net, start, subset, digits))
        return rows

    @staticmethod
    def probabilities(ours, others):
        return stats.ttest_ind(ours, others, equal_var=False).pvalue

    def test_the_figures_are_those_of_the_loop(self, digits, subset, ours):
        assert self.probabilities(ours, self.literal(digits, subset, 0)).min() > self.ALARM

    @pytest.mark.parametrize(
        "other",
        [
            {"strategy": "none"},
            {"falls_after": 99},
            {"momentum": 0.8},
        ],
        ids=str,
    )
    def test_those_of_another_protocol_are_not(self, digits, subset, ours, other):
        assert self.probabilities(ours, self.literal(digits, subset, 100, **other)).min() < self.ALARM
