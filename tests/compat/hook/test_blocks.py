"""Networks that stay the script's own run their blocks on our ops, and give what they gave."""

import copy
import importlib
import pickle

import pytest
import torch
from field_code import NETWORKS, UTILS
from torch import nn

from fastdd.compat.hook import blocks

NET = (3, 4, 8, 2, "relu", "instancenorm", "avgpooling", (16, 16))
LOGITS = "return self.classifier(self.embed(x))"
TWO_OUTPUTS = NETWORKS.replace(LOGITS, "return self.embed(x), self.classifier(self.embed(x))")
SLICES = """first = self.features[:-4](x)
        return self.classifier(self.features[-4:](first).flatten(1)), first"""
KINDS = {
    "outputs": TWO_OUTPUTS,
    "arguments": NETWORKS.replace("def forward(self, x):", "def forward(self, x, upsample=False, embed=False):"),
    "slices": NETWORKS.replace(LOGITS, SLICES),
}


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    monkeypatch.setattr(blocks, "_WORTH", {"pooled": 0, "not pooled": 0})
    monkeypatch.setattr(blocks, "_FEW_CHANNELS", 1)


def rows(hook):
    return {row["name"]: row for row in hook.report().rows}


def tensors(result):
    return result if isinstance(result, tuple) else (result,)


def layer_by_layer(net):
    """The same network of PyTorch's layers."""
    return pickle.loads(pickle.dumps(net))


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_give_the_values_and_gradients_of_the_layers(hooked, folder, kind):
    (folder / "networks.py").write_text(KINDS[kind])
    hook, utils = hooked()
    torch.manual_seed(0)
    net, x = utils.ConvNet(*NET), torch.randn(5, 3, 16, 16)
    assert isinstance(net.features, blocks.Blocks)
    plain = layer_by_layer(net)
    assert type(plain.features) is nn.Sequential
    assert {type(layer) for layer in plain.features} == {nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d}
    for _ in range(4):
        results = [tensors(made(x)) for made in (net, plain)]
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, check_stride=True)
    gradients = [
        torch.autograd.grad(result[0].square().sum(), list(made.parameters())[:2])
        for result, made in zip(results, (net, plain), strict=True)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    row = rows(hook)["ConvNet (blocks)"]
    assert (row["checked"], row["agreed"], row["original"]) == (3, 3, 0)
    assert row["calls"] >= 4


def test_copies_keep_the_blocks_and_their_own_parameters(hooked, folder):
    (folder / "networks.py").write_text(TWO_OUTPUTS)
    _, utils = hooked()
    net = utils.ConvNet(*NET)
    copied = copy.deepcopy(net)
    assert type(copied.features) is type(net.features)
    assert repr(copied) == repr(net) == repr(layer_by_layer(net))
    assert copied.features[0].weight is not net.features[0].weight


def test_blocks_that_differ_are_left_to_the_layers(hooked, folder, monkeypatch):
    (folder / "networks.py").write_text(TWO_OUTPUTS)
    hook, utils = hooked()
    net, x = utils.ConvNet(*NET), torch.randn(2, 3, 16, 16)
    monkeypatch.setattr(blocks.Blocks, "forward", lambda self, x: nn.Sequential.forward(self, x) + 1)
    torch.testing.assert_close(net(x)[0], layer_by_layer(net)(x)[0])
    assert rows(hook)["ConvNet (blocks)"]["original"] == 1  # the second; the first was compared


def test_statistics_move_once_a_call_and_small_calls_are_pytorchs(hooked, folder, monkeypatch):
    text = TWO_OUTPUTS.replace("nn.GroupNorm(shape_feat, shape_feat)", "nn.BatchNorm2d(shape_feat)")
    (folder / "networks.py").write_text(text)
    hook, utils = hooked()
    net, x = utils.ConvNet(*NET), torch.randn(4, 3, 16, 16)
    plain = layer_by_layer(net)
    net(x), plain(x)
    torch.testing.assert_close(net.features[1].running_var, plain.features[1].running_var)
    assert net.features[1].num_batches_tracked == plain.features[1].num_batches_tracked
    monkeypatch.setattr(blocks, "_WORTH", {"pooled": 1 << 30, "not pooled": 1 << 30})
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x)[1], plain.eval()(x)[1])
    assert rows(hook)["ConvNet (blocks)"]["notes"][0] == "2 calls by the original: too small to gain"


PAIR = UTILS.replace("output = net(img)", "output = net(img)[1]")
UNPACKED = UTILS.replace("output = net(img)", "_, output = net(img)")


@pytest.mark.parametrize("text", [PAIR, UNPACKED])
def test_an_epoch_of_networks_with_two_outputs_is_ours(hooked, folder, text):
    (folder / "networks.py").write_text(TWO_OUTPUTS)
    (folder / "utils.py").write_text(text)
    hook, utils = hooked()
    torch.manual_seed(0)
    net = utils.ConvNet(*NET)
    loader = [(torch.randn(4, 3, 16, 16), torch.arange(4))] * 2
    args = type("Args", (), {"device": "cpu", "dsa": False})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(4):
        utils.epoch("train", loader, net, optimizer, nn.CrossEntropyLoss(), args, False)
    row = rows(hook)["epoch"]
    assert (row["calls"], row["checked"], row["agreed"], row["original"]) == (4, 3, 3, 0)


def test_an_epoch_with_more_parameters_is_ours_while_they_are_at_their_defaults(hooked, folder):
    text = UTILS.replace("criterion, args, aug)", "criterion, args, aug, step=-1, bsr=False, partial=None)")
    (folder / "utils.py").write_text(text)
    hook, utils = hooked()
    net, loader = utils.ConvNet(*NET), [(torch.randn(4, 3, 16, 16), torch.arange(4))]
    args = type("Args", (), {"device": "cpu", "dsa": False})
    for more in ({}, {"step": -1, "partial": None}, {"bsr": True}):
        utils.epoch("test", loader, net, None, nn.CrossEntropyLoss(), args, False, **more)
    row = rows(hook)["epoch"]
    assert (row["calls"], row["agreed"], row["original"]) == (3, 2, 1)
    assert "bsr is given, which is the module's own" in row["notes"][0]


OTHER = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
"""


def test_networks_of_other_modules_are_left_alone(hooked, folder):
    (folder / "more.py").write_text(OTHER)
    hooked()
    assert type(importlib.import_module("more").Net().features) is nn.Sequential


def test_a_large_call_is_compared_on_some_of_its_images(hooked, folder, monkeypatch):
    (folder / "networks.py").write_text(TWO_OUTPUTS)
    hook, utils = hooked()
    net, seen = utils.ConvNet(*NET), []
    forward = nn.Sequential.forward
    monkeypatch.setattr(nn.Sequential, "forward", lambda self, x: (seen.append(len(x)), forward(self, x))[1])
    for _ in range(4):
        assert len(net(torch.randn(40, 3, 16, 16))[0]) == 40
    assert seen == [16, 16, 16]
    assert rows(hook)["ConvNet (blocks)"]["agreed"] == 3


LOOP = """

    def embed_channel_avg(self, x, last=-1, flatten=True):
        modulelist = list(self.features.modules())[1:]
        for module in modulelist[:last]:
            x = module(x)
        if flatten:
            out = x.view(x.size(0), -1)
            return out
        else:
            return x
"""


@pytest.mark.parametrize("text", ["published", "another"])
def test_layers_that_a_published_method_calls_one_by_one_run_as_a_block(hooked, folder, text):
    loop = LOOP if text == "published" else LOOP.replace("return x\n", "return x + 0\n")
    before, name, after = TWO_OUTPUTS.partition("    def _get_activation")
    assert name
    (folder / "networks.py").write_text(f"{before}{loop.strip(chr(10))}\n\n{name}{after}")
    hook, utils = hooked()
    net, x = utils.ConvNet(*NET), torch.randn(20, 3, 16, 16)
    for last, flatten in ((-1, True), (4, False), (-2, True), (-1, True), (7, False)):
        plain = x
        for layer in list(net.features)[:last]:
            plain = layer(plain)
        plain = plain.flatten(1) if flatten else plain
        embedded = net.embed_channel_avg(x, last=last, flatten=flatten)
        torch.testing.assert_close(embedded, plain, rtol=1e-4, atol=1e-5, check_stride=True)
    gradients = [
        torch.autograd.grad(value.square().sum(), list(net.features.parameters())[:2]) for value in (embedded, plain)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    row = rows(hook).get("ConvNet.embed_channel_avg")
    if text == "another":
        assert row is None
        assert "ConvNet (blocks)" not in rows(hook) or rows(hook)["ConvNet (blocks)"]["calls"] == 0
        return
    assert (row["calls"], row["checked"], row["agreed"], row["original"]) == (5, 3, 3, 0)
    assert rows(hook)["ConvNet (blocks)"]["calls"] == 5
    torch.testing.assert_close(net.embed_channel_avg(x[:, :, :, ::2]), net.features[:-1](x[:, :, :, ::2]).flatten(1))
    assert rows(hook)["ConvNet.embed_channel_avg"]["original"] == 1  # its strides are for PyTorch to choose
