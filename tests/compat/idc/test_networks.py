"""IDC's networks against the published ones, and against pinned keys and counts where there is no checkout."""

import copy
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastdd.compat import idc as ours
from fastdd.compat.dc import ConvNet
from fastdd.compat.hook import checkout
from fastdd.core import rng


def draws(number, *shape):
    return rng.normal(rng.key(number, "idc-networks"), torch.Size(shape).numel()).view(shape)


def seeded(make, *arguments, **settings):
    torch.manual_seed(3)
    return make(*arguments, **settings)


def assert_same(make, published, images, *arguments, **settings):
    """The same draws, keys and order; outputs and features as far as rounding goes."""
    net, theirs = seeded(make, *arguments, **settings), seeded(published, *arguments, **settings)
    state, expected = net.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    assert [name for name, _ in net.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert all(map(torch.equal, state.values(), expected.values()))
    net.eval()
    theirs.eval()
    with torch.no_grad():
        truth, found = (copy.deepcopy(own).double()(images.double()) for own in (theirs, net))
        assert (found - truth).norm() <= 1e-12 * truth.norm()
        error = (theirs(images) - truth).norm()
        # Twice for a convolution by Winograd's method, and twice for the luck of a few outputs.
        assert (net(images) - truth).norm() <= 4 * error + 1e-6 * truth.norm()
        if hasattr(theirs, "get_feature"):
            last = 2 if isinstance(net, ours.ConvNet) else 6
            for first, end in ((0, -1), (1, 2), (2, -1), (0, last)):
                found, published = net.get_feature(images, first, end), theirs.get_feature(images, first, end)
                truths = copy.deepcopy(theirs).double().get_feature(images.double(), first, end)
                assert len(found) == len(published)
                for a, b, truth in zip(found, published, truths, strict=True):
                    assert a.shape == b.shape
                    assert (a - truth).norm() <= 2 * (b - truth).norm() + 1e-6 * truth.norm()


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group"])
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28)])
def test_convnet_is_the_published_one(upstream, norm, channels, size):
    published = upstream("idc")[1]["models.convnet"].ConvNet
    images = draws(1, 3, channels, size, size)
    assert_same(ours.ConvNet, published, images, 10, net_norm=norm, channel=channels, im_size=(size, size))


@pytest.mark.parametrize(
    "setting",
    [{"net_norm": "none"}, {"net_pooling": "none"}, {"net_pooling": "maxpooling"}, {"net_act": "leakyrelu"}],
)
def test_variants_of_convnet(upstream, setting):
    published = upstream("idc")[1]["models.convnet"].ConvNet
    if setting in ({"net_norm": "none"}, {"net_pooling": "none"}):  # whose features the published code can't give
        settings = {"net_depth": 2, "net_width": 8, **setting}
        net, theirs = seeded(ours.ConvNet, 5, **settings), seeded(published, 5, **settings)
        assert list(net.state_dict()) == list(theirs.state_dict())
        torch.testing.assert_close(net(draws(2, 2, 3, 32, 32)), theirs(draws(2, 2, 3, 32, 32)), rtol=1e-4, atol=1e-5)
    else:
        assert_same(ours.ConvNet, published, draws(2, 2, 3, 32, 32), 5, net_width=8, **setting)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(
    ("dataset", "depth", "size"),
    [("cifar10", 20, 32), ("imagenet", 10, 32), ("imagenet", 10, 112), ("imagenet", 18, 224), ("imagenet", 50, 32)],
)
@pytest.mark.parametrize("kind", ["resnet", "resnet_ap"])
def test_resnets_are_the_published_ones(upstream, kind, dataset, depth, size, norm):
    modules = upstream("idc")[1]
    name = {"resnet": "ResNet", "resnet_ap": "ResNetAP"}[kind]
    published = getattr(modules[f"models.{kind}"], name)
    settings = {"norm_type": norm, "size": size, "nch": 3}
    assert_same(getattr(ours, name), published, draws(3, 2, 3, size, size), dataset, depth, 10, **settings)


@pytest.mark.parametrize("norm", ["sn", "none"])
def test_resnet_ap_without_norms(upstream, norm):
    published = upstream("idc")[1]["models.resnet_ap"].ResNetAP
    settings = {"width": 0.5, "norm_type": norm, "size": 32, "nch": 1}
    assert_same(ours.ResNetAP, published, draws(4, 2, 1, 32, 32), "imagenet", 10, 10, **settings)


def test_densenet_is_the_published_one(upstream):
    (published,) = checkout.modules(upstream("idc")[0], ("models.densenet_cifar",))
    assert_same(ours.densenet_cifar, published.densenet_cifar, draws(5, 2, 3, 32, 32), 10)


def test_counts_and_keys():
    kinds = ("weight", "bias")
    net = ours.ConvNet(10)
    assert list(net.state_dict()) == [
        *(f"layers.{part}.{i}.{kind}" for part in ("conv", "norm") for i in range(3) for kind in kinds),
        *(f"classifier.{kind}" for kind in kinds),
    ]
    counts = {
        net: 320_010,
        ours.ConvNet(10, channel=1, im_size=(28, 28)): 317_706,
        ours.ResNet("cifar10", 20, 10, "instance", 32): 4_366_250,
        ours.ResNetAP("imagenet", 10, 10, 1.0, "instance", 224): 4_910_922,
        ours.ResNet("imagenet", 18, 10, "batch", 32): 11_173_962,
        ours.densenet_cifar(10): 1_000_618,
    }
    for made, count in counts.items():
        assert sum(parameter.numel() for parameter in made.parameters()) == count
    keys = [*ours.ResNetAP("imagenet", 10, 10, 1.0, "instance", 224).state_dict()]
    assert keys[:3] == ["layer0.conv1.weight", "layer0.bn1.weight", "layer0.bn1.bias"]
    assert "layer2.0.downsample.2.weight" in keys  # 1: the pooling
    assert keys[-2:] == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("images", [3, 40])
def test_convnet_is_dcs_with_other_keys(images):
    torch.manual_seed(1)
    dc = ConvNet(3, 10, 16, 3, "relu", "instancenorm", "avgpooling").double()
    torch.manual_seed(1)
    net = ours.ConvNet(10, net_width=16).double()
    x = draws(6, images, 3, 32, 32).double()
    assert (net(x) - dc(x)).abs().max() <= 1e-12
    logits, features = net(x, return_features=True)
    assert torch.equal(logits, net(x))
    assert (features - dc.embed(x)).abs().max() <= 1e-12
    every, probabilities = net.get_feature(x, 0, 3, return_prob=True)
    assert [f.shape[1:] for f in every] == [(16, 16, 16), (16, 8, 8), (16, 4, 4)]
    assert (probabilities - logits.softmax(1)).abs().max() <= 1e-12
    assert torch.equal(net.get_feature(x, 0, 3, return_logit=True)[1], logits)
    # DREAM's and NCFM's.
    assert torch.equal(net.embed(x), features)
    assert torch.equal(net.embed_to_logit(features), logits)
    assert torch.equal(net.get_feature_from_layer(x), logits)
    both = net.get_feature_from_layer(x, return_features=True)
    assert (both[0] - logits).abs().max() <= 1e-12
    assert all(map(torch.equal, both[1], every))


@pytest.mark.parametrize("images", [3, 40])
def test_layers_that_are_swapped_or_hooked_are_called(images):
    net, x = ours.ConvNet(5, net_width=8).eval(), draws(7, images, 3, 32, 32)
    seen = []
    with torch.no_grad():
        expected = net(x)
        handle = net.layers["norm"][1].register_forward_hook(lambda module, args, out: seen.append(out))
        assert (net(x) - expected).abs().max() <= 1e-5
        handle.remove()
        assert len(seen) == 1
        net.layers["norm"][1] = nn.BatchNorm2d(8).eval()
        features = net.get_feature(x, 1)[0]
        literal = net.layers["norm"][1](net.layers["conv"][1](net.get_feature(x, 0)[0]))
        assert (features - F.avg_pool2d(F.relu(literal), 2)).abs().max() <= 1e-5


def test_gradients_of_gradients_are_the_layers():
    net, x = ours.ConvNet(5, net_width=4, net_depth=2).double(), draws(8, 3, 3, 32, 32).double().requires_grad_()

    def plain(t):
        for layers in zip(*net.layers.values(), strict=True):
            for layer in layers:
                t = layer(t)
        return net.classifier(t.flatten(1))

    def second(logits):
        loss = F.cross_entropy(logits, torch.tensor([0, 1, 2]))
        grads = torch.autograd.grad(loss, [*net.parameters()], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), x)[0]

    expected = second(plain(x))
    assert (second(net(x)) - expected).abs().max() <= 1e-12 * max(1.0, expected.abs().max())


@pytest.mark.parametrize(
    ("setting", "kind", "count"),
    [
        ({"net_type": "convnet", "depth": 3}, ours.ConvNet, 320_010),
        ({"net_type": "resnet", "depth": 10}, ours.ResNet, 4_903_242),
        ({"net_type": "resnet_ap", "depth": 10}, ours.ResNetAP, 4_903_242),
        ({"net_type": "densenet", "depth": 0}, ours.DenseNet, 1_000_618),
    ],
)
def test_define_model(setting, kind, count):
    args = Namespace(dataset="imagenet", size=32, nch=3, width=1.0, norm_type="instance", **setting)
    told = []
    net = ours.define_model(args, 10, told.append)
    assert isinstance(net, kind)
    assert sum(p.numel() for p in net.parameters()) == count
    assert told == [f"=> creating model {args.net_type}-{args.depth}, norm: instance"]


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="unknown net_norm 'instancenorm'; one of: instance, "):
        ours.ConvNet(10, net_norm="instancenorm")
    with pytest.raises(ValueError, match="unknown norm_type 'sn'; one of: batch, instance"):
        ours.ResNet("imagenet", 10, 10, "sn", 32)
    with pytest.raises(ValueError, match=r"depth must be one of 10, 18, .*, not 20"):
        ours.ResNet("imagenet", 20, 10, "batch", 32)
    with pytest.raises(ValueError, match="unknown net_type 'efficient'"):
        ours.define_model(Namespace(net_type="efficient", norm_type="batch", size=32, nch=3), 10)
