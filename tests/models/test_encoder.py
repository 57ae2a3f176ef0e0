"""Bias encoders: the published layers, their initialisation, and points on the sphere."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastdd.models import ENCODERS, build_encoder


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size", [(16, 16), (7, 5), (32, 32)])
def test_rows_are_on_the_unit_sphere(name, size):
    images = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0))
    made = build_encoder(name, 2, key=1)(images)
    assert made.shape == (3, 128)
    torch.testing.assert_close(made.norm(dim=1), torch.ones(3))


def test_resnet18_has_the_published_layers():
    net = build_encoder("resnet18", 3)
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    # Stem, 16 in residual blocks, 3 shortcuts.
    assert len(convolutions) == 20
    assert (convolutions[0].kernel_size, convolutions[0].stride) == ((3, 3), (1, 1))
    widths = [layer.out_channels for layer in convolutions if layer.kernel_size == (3, 3)]
    assert widths == [64] * 5 + [128] * 4 + [256] * 4 + [512] * 4
    assert [layer.stride[0] for layer in convolutions if layer.kernel_size == (1, 1)] == [2, 2, 2]
    linear = [(layer.in_features, layer.out_features) for layer in net.head if isinstance(layer, nn.Linear)]
    assert linear == [(512, 512), (512, 128)]
    # A ResNet-18 for CIFAR without its classifier, and the head.
    assert sum(p.numel() for p in net.body.parameters()) == 11_168_832
    assert sum(p.numel() for p in net.head.parameters()) == 512 * 513 + 128 * 513


def test_resnet18_against_functional_layers():
    """The residual blocks, in eval mode with given statistics, against the same arithmetic written out."""
    net = build_encoder("resnet18", 3, key=3).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def norm(layer, x):
        return (x - 0) / math.sqrt(1 + layer.eps) * layer.weight[:, None, None] + layer.bias[:, None, None]

    y = F.relu(norm(net.body[1], F.conv2d(x, net.body[0].weight, padding=1)))
    for number, block in enumerate(net.body[3:11]):
        stride = 2 if number in (2, 4, 6) else 1
        inside = F.relu(norm(block.bn1, F.conv2d(y, block.conv1.weight, stride=stride, padding=1)))
        inside = norm(block.bn2, F.conv2d(inside, block.conv2.weight, padding=1))
        if stride == 2:
            y = norm(block.shortcut[1], F.conv2d(y, block.shortcut[0].weight, stride=2))
        y = F.relu(inside + y)
    y = y.mean((2, 3))
    y = F.relu(y @ net.head[0].weight.T + net.head[0].bias) @ net.head[2].weight.T + net.head[2].bias
    torch.testing.assert_close(net(x), y / y.norm(dim=1, keepdim=True))


def test_small_pools_to_the_means_of_quarters():
    net = build_encoder("small", 3)
    x = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net.body[-1](x).view(2, 2, 2, 4).permute(0, 3, 1, 2), F.adaptive_avg_pool2d(x, 2))


@pytest.mark.parametrize("name", ENCODERS)
def test_initialisation(name):
    """Convolutions: normal, variance 2 / fan_out; linear layers: uniform on +-1/sqrt(fan_in); norms: 1 and 0."""
    net = build_encoder(name, 3, key=5)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / (layer.out_channels * layer.kernel_size[0] ** 2))
            n = layer.weight.numel()
            assert layer.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * n))
            assert abs(layer.weight.mean().item()) < 5 * expected / math.sqrt(n)
        elif isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            assert 0.99 * bound < layer.weight.abs().max() <= bound
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()
            assert (layer.running_var == 1).all()


def test_a_function_of_the_key_alone():
    state = torch.get_rng_state()
    first, again, other = (build_encoder("small", 3, key=key).state_dict() for key in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
    assert not torch.equal(first["body.0.weight"], other["body.0.weight"])


def test_unknown():
    with pytest.raises(ValueError, match="unknown encoder 'vgg'; one of: resnet18, small"):
        build_encoder("vgg", 3)
