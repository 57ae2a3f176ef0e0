"""ConvNet against the published layout: names, keys, parameter order and counts (Zhao et al.'s networks)."""

import pytest
import torch
from torch import nn

from fastdd import models, ops
from fastdd.core import rng


@pytest.mark.parametrize(
    ("name", "channels", "classes", "size", "count"),
    [
        ("ConvNet", 3, 10, 32, 320_010),
        ("ConvNet", 3, 100, 32, 504_420),
        ("ConvNetD4", 3, 200, 64, 857_160),
        ("ConvNetD5", 3, 10, 128, 615_690),
        ("ConvNet", 3, 2, 64, 315_906),
        ("ConvNet", 1, 10, 28, 317_706),  # 320,010 less 2 * 9 * 128 weights: padding 3 makes 28x28 into 32x32
    ],
)
def test_published_parameter_counts(name, channels, classes, size, count):
    net = models.build(name, channels, classes, (size, size))
    assert sum(p.numel() for p in net.parameters()) == count
    assert net(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_state_dict_keys_and_order():
    keys = [
        f"{part}.{kind}"
        for part in ("features.0", "features.1", "features.4", "features.5", "features.8", "features.9", "classifier")
        for kind in ("weight", "bias")
    ]
    assert list(models.build("ConvNet", 3, 10).state_dict()) == keys
    assert [name for name, _ in models.build("ConvNet", 3, 10).named_parameters()] == keys


def test_three_channel_28_uses_the_true_size():
    net = models.build("ConvNet", 3, 10, (28, 28))
    assert net.embedding_dim == 128 * 3 * 3
    assert net.embed(torch.zeros(1, 3, 28, 28)).shape == (1, 1152)


@pytest.mark.parametrize("name", [name for name in models.names() if name.startswith("ConvNet")])
def test_every_name_builds_and_runs(name):
    size = (16, 16) if name not in {"ConvNetD5", "ConvNetD6", "ConvNetD7", "ConvNetD8"} else (256, 256)
    net = models.build(name, 3, 4, size, width=8)
    out = net(torch.randn(2, 3, *size))
    assert out.shape == (2, 4)
    assert torch.isfinite(out).all()


def test_blocks_are_conv_norm_activation_pool():
    kinds = [type(layer) for layer in models.build("ConvNet", 3, 10).features[:4]]
    assert kinds == [ops.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d]
    assert models.build("ConvNet", 3, 10).features[1].num_groups == 128
    assert models.build("ConvNetGN", 3, 10).features[1].num_groups == 4


def test_errors():
    with pytest.raises(ValueError, match="did you mean ConvNet"):
        models.build("ConvNett", 3, 10)
    with pytest.raises(ValueError, match="too small for a ConvNet of depth 5, which takes 32x32"):
        models.build("ConvNetD5", 3, 10, (16, 16))
    with pytest.raises(ValueError, match="unknown norm 'weird'"):
        models.ConvNet(3, 10, norm="weird")


class TestParameterInit:
    def test_distribution_is_pytorchs_default(self):
        net = models.build("ConvNet", 3, 10)
        init = models.ParameterInit(net)
        init.fill(rng.key(0, "test"))
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                bound = layer.weight[0].numel() ** -0.5
                for values in (layer.weight, layer.bias):
                    assert values.abs().max() <= bound
                count = layer.weight.numel()
                # Five standard errors of the mean and of the second moment of U(-b, b).
                assert abs(layer.weight.mean()) < 5 * bound / (3 * count) ** 0.5
                assert abs((layer.weight**2).mean() / (bound**2 / 3) - 1) < 5 * (0.8 / count) ** 0.5
            elif isinstance(layer, nn.GroupNorm):
                assert (layer.weight == 1).all()
                assert (layer.bias == 0).all()

    def test_same_key_same_network_and_views_follow(self):
        nets = [models.build("ConvNetBN", 3, 10, width=8) for _ in range(2)]
        inits = [models.ParameterInit(net) for net in nets]
        nets[0].train()(torch.randn(4, 3, 32, 32))
        for init in inits:
            init.fill(7)
        for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
            assert torch.equal(a, b)
        inits[0].fill(8)
        assert not torch.equal(nets[0].features[0].weight, nets[1].features[0].weight)

    def test_global_rng_untouched(self):
        init = models.ParameterInit(models.build("ConvNet", 3, 10, width=8))
        before = torch.get_rng_state()
        init.fill(1)
        assert torch.equal(before, torch.get_rng_state())

    def test_unknown_layer_is_refused(self):
        with pytest.raises(TypeError, match="PReLU"):
            models.ParameterInit(nn.Sequential(nn.Linear(2, 2), nn.PReLU()))
