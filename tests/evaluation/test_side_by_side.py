"""Networks evaluated side by side have the figures that each has by itself."""

from fractions import Fraction

import pytest
import torch
from tiny_runs import made

from fastdd import models
from fastdd.data import DeviceImages
from fastdd.evaluation import Protocol, evaluate
from fastdd.evaluation.protocol import train, train_side_by_side

PROTOCOLS = {
    "published": Protocol(epochs=3, batch=16),
    "idc": Protocol(
        epochs=3, batch=16, composition="idc", cutmix=0.7, milestones=(Fraction(1, 3), Fraction(2, 3)), gamma=0.2
    ),
    "ncfm": Protocol(epochs=3, batch=16, optimizer="adamw", learning_rate=1e-3, dsa_strategy="crop_cutout", cutmix=1.0),
}


@pytest.mark.parametrize(("name", "soft"), [("published", False), ("idc", True), ("ncfm", False)])
def test_training_is_that_of_each_in_float64(name, soft):
    data, keys = made("colour"), [(3, "evaluation", number) for number in range(3)]
    pixels = torch.linspace(-9, 9, 36 * 3 * 8 * 8, dtype=torch.float64).sin().view(36, 3, 8, 8)
    images, labels = DeviceImages(pixels), torch.from_numpy(data.train.labels)
    if soft:
        labels = torch.nn.functional.one_hot(labels, 3) * 0.7 + 0.1
    nets = [models.build("ConvNetASwish", 3, 3, (8, 8), width=4, depth=2, key=key).double() for key in range(3)]
    many = models.SideBySide(nets[0], 3)
    for number, net in enumerate(nets):
        many.take(number, net)
    losses = train_side_by_side(many, images, labels, PROTOCOLS[name], keys)
    for number, net in enumerate(nets):
        start = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
        loss = train(net, images, labels, PROTOCOLS[name], keys[number])
        alone = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
        many.give(number, net)
        found = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
        # Each of twelve steps may double a rounding of 1e-16; AdamW divides those of biases before norms, whose
        # gradients are nothing else, by its epsilon of 1e-8. The smallest mistake is of the order of 1.
        tolerance = 1e-8 if PROTOCOLS[name].optimizer == "adamw" else 1e-10
        assert (found - alone).norm() < tolerance * (alone - start).norm()
        torch.testing.assert_close(losses[number], loss, rtol=1e-6, atol=0)  # both are summed in float32


def test_counts_are_those_of_each_however_many_go_together():
    data = made("colour")
    images = DeviceImages.of(data.train.images, data.mean, data.std)
    labels, kept = torch.from_numpy(data.train.labels), {}

    def of(side_by_side):
        return evaluate(
            images,
            labels,
            data,
            arch="ConvNet",
            width=4,
            depth=2,
            nets=3,
            protocol=Protocol(epochs=4),
            side_by_side=side_by_side,
            keep=lambda number, net, counts: kept.setdefault(number, []).append(
                torch.nn.utils.parameters_to_vector(net.parameters()).detach().clone()
            ),
        ).counts

    alone = of(None)
    for together in (1, 2, 3):
        for counts, other in zip(of(together), alone, strict=True):
            assert torch.equal(counts.total, other.total)
            assert (counts.right - other.right).abs().sum() <= 1  # one image whose classes are as likely as can be
    for parameters in kept.values():
        for other in parameters[1:]:
            torch.testing.assert_close(other, parameters[0], rtol=1e-3, atol=1e-4)
