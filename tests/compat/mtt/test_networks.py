"""Networks for ImageNet."""

import pytest
import torch

from fastdd.compat import mtt


@pytest.mark.parametrize("size", [64, 128])
def test_every_stage_halves_whatever_the_size(size):
    """As published; ours of a given size keep the pixels that instance norm needs."""
    net = mtt.ResNet6ImageNet(3, 4).eval()
    stages = [net.layer1, net.layer2, net.layer3, net.layer4]
    assert [stage[0].conv1.stride for stage in stages] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    x = torch.randn(2, 64, size // 4, size // 4)
    for stage in stages:
        x = stage(x)
    assert x.shape[-2:] == (size // 32, size // 32)
