"""Networks side by side are the networks one by one: values, derivatives, and what norms keep."""

from unittest import mock

import pytest
import torch

from fastdd import models
from fastdd.models import resnet

# Every layer that is known: instance, group and batch norms, poolings, shortcuts, linear layers behind one another.
KNOWN = ("ConvNet", "ConvNetGN", "ConvNetBN", "ConvNetMP", "LeNet", "MLP", "ResNet")
OTHERS = ("ViT1", "ConvNetLN")


def build(name, key):
    if name == "ResNet":  # a small one
        with mock.patch.object(resnet, "_STAGES", (4, 8, 8, 8)):
            net = models.initialised(lambda: models.ResNet(3, 5, counts=(1,) * 4, size=(16, 16)), key)
    else:
        small = {"width": 8, "depth": 2} if models.is_convnet(name) else {}
        net = models.build(name, 3, 5, (16, 16), key=key, **small)
    return net.double()


@pytest.mark.parametrize("name", KNOWN)
def test_values_derivatives_and_statistics_are_those_of_each(name):
    nets = [build(name, key) for key in range(3)]
    many = models.SideBySide(nets[0], 3)
    for number, net in enumerate(nets):
        many.take(number, net)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 2, 3, 16, 16, generator=generator, dtype=torch.float64)
    towards = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    logits = many.train()(images)
    (logits * towards).sum().backward()
    for number, net in enumerate(nets):
        alone = net.train()(images[number])
        (alone * towards[number]).sum().backward()
        torch.testing.assert_close(logits[number], alone, rtol=1e-9, atol=1e-9)
        for whole, its in zip(many.net.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(whole.grad.view(3, *its.shape)[number], its.grad, rtol=1e-7, atol=1e-8)
        given = build(name, 9)
        many.give(number, given)
        for mine, its in zip(given.state_dict().values(), net.state_dict().values(), strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_are_refused(name):
    net = build(name, 0)
    assert not models.fits_side_by_side(net)
    with pytest.raises(TypeError, match="do not run side by side"):
        models.SideBySide(net, 2)


def test_a_cpu_trains_one_after_another():
    assert models.networks_at_once(build("ConvNet", 0), torch.empty(1, 3, 16, 16), 256) == 1
