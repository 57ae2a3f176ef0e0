"""The other networks against the published layout: sizes, keys, counts (Zhao et al.'s networks.py), and their use."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import fastdd
from fastdd import debias, models, ops
from fastdd.bench.oracles import ORACLES
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.data.initial import random_set
from fastdd.methods import dc, dm, unroll
from fastdd.models.pretrained import load_weights
from fastdd.models.registry import _make

# Parameters of the published networks for 10 classes, by (channels, pixels); 64: FairDD's heads.
COUNTS = {
    "MLP": {(3, 32): 411_146, (1, 28): 118_282},
    "LeNet": {(3, 32): 62_006, (1, 28): 61_706},
    "AlexNet": {(3, 32): 1_872_202, (1, 28): 1_865_802, (3, 64): 1_964_362},
    "AlexNetBN": {(3, 32): 1_874_122, (1, 28): 1_867_722},
    "VGG11": {(3, 32): 9_231_114, (1, 28): 9_229_962, (3, 64): 9_246_474},
    "VGG11BN": {(3, 32): 9_231_114, (1, 28): 9_229_962, (3, 64): 9_246_474},
    "ResNet18": {(3, 32): 11_173_962, (1, 28): 11_172_810, (3, 64): 11_189_322},
    "ResNet18BN": {(3, 32): 11_173_962, (1, 28): 11_172_810, (3, 64): 11_189_322},
    "ResNet18_AP": {(3, 32): 11_250_762, (1, 28): 11_213_770},
    "ResNet18BN_AP": {(3, 32): 11_250_762, (1, 28): 11_213_770},
}
OTHERS = [name for name in models.names() if not name.startswith("ConvNet")]
DEEP = {"ResNet34", "ResNet50", "ResNet101", "ResNet152", "VGG13", "VGG16", "VGG19"}


def draws(number, *shape):
    return rng.normal(rng.key(number, "networks"), torch.Size(shape).numel()).view(shape)


def without_values(name, channels=3, size=(32, 32)):
    """A network where shapes alone are tested: to draw its weights, and to run it, would take most of the time."""
    with torch.device("meta"):
        return _make(name, channels, 10, size, None, None)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in COUNTS.items() for case in cases])
def test_published_parameter_counts(name, case):
    channels, size = case
    net = without_values(name, channels, size=(size, size))
    assert sum(p.numel() for p in net.parameters()) == COUNTS[name][case]
    images = torch.empty(2, channels, size, size, device="meta")
    with torch.no_grad():
        assert net(images).shape == (2, 10)
        assert net.embed(images).shape == (2, net.embedding_dim)


@pytest.mark.parametrize("name", sorted(DEEP))
def test_deep_ones_have_the_layers_of_their_name(name):
    """Weighted layers on the longest path: convolutions but the shortcuts', and the linear one."""
    net = without_values(name)
    layers = [path for path, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert sum("shortcut" not in path for path in layers) == int(name.lstrip("VGResNt")) + (name[0] == "V") * -2


@pytest.mark.parametrize(
    "name", ["ResNet50", "VGG19", *(pytest.param(name, marks=pytest.mark.full) for name in ("ResNet34", "ResNet152"))]
)
def test_deep_ones_start_finite(name):
    """The deepest of each kind, of which the others are a part; by default the shallowest ResNet of bottlenecks."""
    net = models.build(name, 3, 2)
    with torch.no_grad():
        assert torch.isfinite(net.eval()(draws(2, 2, 3, 32, 32))).all()


def test_state_dict_keys_and_order():
    def keys(name):
        return [key for key in without_values(name).state_dict() if "running" not in key and "num_b" not in key]

    assert keys("MLP") == [f"fc_{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")]
    heads = [f"fc_{i}" for i in (1, 2, 3)]
    assert keys("LeNet") == [f"{p}.{kind}" for p in ("features.0", "features.3", *heads) for kind in ("weight", "bias")]
    layers = [f"features.{i}" for i in (0, 3, 6, 8, 10)]
    assert keys("AlexNet") == [f"{part}.{kind}" for part in (*layers, "fc") for kind in ("weight", "bias")]
    convs = [f"features.{i}" for i in (0, 1, 4, 5, 8, 9, 11, 12, 15, 16, 18, 19, 22, 23, 25, 26)]
    for name in ("VGG11", "VGG11BN"):
        assert keys(name) == [f"{part}.{kind}" for part in (*convs, "classifier") for kind in ("weight", "bias")]
    block = ["conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias"]
    shortcut = ["shortcut.0.weight", "shortcut.{}.weight", "shortcut.{}.bias"]
    for name, norm in (("ResNet18", 1), ("ResNet18BN", 1), ("ResNet18_AP", 2), ("ResNet18BN_AP", 2)):
        expected = block[:3]
        for stage in range(1, 5):
            for i in range(2):
                own = block + (shortcut if stage > 1 and i == 0 else [])
                expected += [f"layer{stage}.{i}.{key.format(norm)}" for key in own]
        assert keys(name) == [*expected, "classifier.weight", "classifier.bias"]


@pytest.mark.parametrize("name", sorted({*OTHERS} - DEEP))
def test_values_are_those_of_plain_layers(name):
    """In float32 and fused, against the same network in float64, where every convolution is PyTorch's."""
    size = 64 if name.endswith("ImageNet") else 32
    net = models.build(name, 3, 10, (size, size), key=7).eval()
    images = draws(3, 2, 3, size, size)
    with torch.no_grad():
        truth = copy.deepcopy(net).double()(images.double())
        assert (net(images) - truth).abs().max() <= 1e-5 * truth.abs().max()


@given(
    name=st.sampled_from(["ConvNet", "ConvNetD5", *sorted({*OTHERS} - DEEP)]),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
@settings(max_examples=12)
@example(name="ResNet18", channels=3, size=(16, 16))
@example(name="ResNet18BN_AP", channels=3, size=(24, 40))
@example(name="VGG11", channels=3, size=(24, 40))
@example(name="ResNet18ImageNet", channels=1, size=(8, 8))
@example(name="ViT", channels=3, size=(17, 19))
def test_images_of_any_size_are_taken_or_one_line_names_what_takes_them(name, channels, size):
    def forward(name, size):
        with torch.device("meta"):
            net = _make(name, channels, 5, size, None, None)
            assert net.embed(torch.empty(2, channels, *size)).shape == (2, net.embedding_dim)
            assert net(torch.empty(2, channels, *size)).shape == (2, 5)

    try:
        forward(name, size)
    except ValueError as error:
        told = str(error)
        assert told.startswith(("images of {}x{} pixels are too small for ".format(*size), "ViT can't cut images of "))
        (other,) = re.findall(r"; an? (MLP|ConvNet of depth \d)", told)
        forward(other.replace("ConvNet of depth ", "ConvNetD"), size)
        for smallest in re.findall(r"takes (\d+)x\1 and more", told):
            forward(name, (int(smallest), int(smallest)))
            with pytest.raises(ValueError, match="too small"):
                forward(name, (int(smallest) - 1, int(smallest) - 1))


SMALL_SIZES = [(2, 2), (8, 8), (24, 40)]


@pytest.mark.parametrize(
    "name",
    [
        *("AlexNet", "VGG11", "ResNet18", "ResNet18_AP", "ResNet6ImageNet"),
        *(pytest.param(name, marks=pytest.mark.full) for name in ("VGG11BN", "ResNet18BN")),
    ],
)
def test_networks_on_small_images_see_them(name):
    """Instance norm of a single pixel is 0: a network that is pooled to one would say the same of every image."""
    for size in SMALL_SIZES[name.endswith("ImageNet") :]:
        net = models.build(name, 3, 4, size, key=3)
        images = draws(5, 2, 3, *size)
        with torch.no_grad():
            logits, truth = net(images), copy.deepcopy(net).double()(images.double())
        assert (logits - truth).abs().max() <= 1e-4 * truth.abs().max(), size
        assert (logits - logits.mean(0)).norm() > 1e-3 * logits.norm(), size


def test_small_maps_are_pooled_as_far_as_they_go():
    """ResNet18's last maps of 16x16 pixels are 2x2, whose mean is what it embeds to; of 24x40, means of 3x4 of 3x5."""
    for size, last in (((16, 16), (2, 2)), ((24, 40), (3, 5))):
        net, maps = models.build("ResNet18", 3, 2, size), []
        net.layer4.register_forward_hook(lambda *call, maps=maps: maps.append(call[2]))
        with torch.no_grad():
            embedded = net.embed(draws(6, 2, 3, *size))
        assert maps[0].shape[2:] == last
        assert torch.allclose(embedded, maps[0][:, :, :4, :4].mean((2, 3)), atol=1e-6)


def test_width_and_depth_are_convnets():
    with pytest.raises(ValueError, match="ResNet18 has its own width: leave that out, or take a ConvNet"):
        models.build("resnet18", 3, 10, width=64)
    with pytest.raises(ValueError, match="MLP has its own width and depth"):
        models.build("MLP", 3, 10, width=64, depth=2)


def test_unknown_norms_and_names_are_refused():
    with pytest.raises(ValueError, match="unknown norm 'layernorm'; one of: instancenorm, batchnorm"):
        models.ResNet(3, 10, norm="layernorm")
    with pytest.raises(ValueError, match="unknown VGG 'VGG12'"):
        models.VGG("VGG12", 3, 10)


@pytest.mark.parametrize("name", ["MLP", "LeNet", "AlexNetBN", "ResNet18BN_AP"])
def test_initialisation_is_a_function_of_the_key_alone(name):
    before = torch.get_rng_state()
    first, again, other = (models.build(name, 3, 10, key=key).state_dict() for key in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if first[key].dim() > 1)


@pytest.mark.parametrize("name", ["MLP", "LeNet", "AlexNet", "AlexNetBN"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_embedders_embed(name, precision):
    net, images = models.build(name, 3, 10).requires_grad_(False).eval(), draws(6, 5, 3, 32, 32)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    found, expected = net.embedder(dtype)(images.to(dtype)), net.embed(images)
    assert found.dtype == dtype
    assert (found - expected).abs().max() <= (0.05 if precision == "bf16" else 1e-6) * expected.abs().max()


def problem(name, size=16):
    """Two classes of 6 and 7 real images in two groups, 2 synthetic images each, without augmentation."""
    pixels = draws(7, 13, 3, size, size).double()
    classes = torch.arange(2).repeat_interleave(torch.tensor([6, 7]))
    groups = torch.arange(13) % 2
    batch = debias.Batch(torch.arange(13), classes, groups, 2, 2)
    net = models.build(name, 3, 2, (size, size), key=5).double().train()
    params = ops.dsa_params("flip", rng.lanes(3, 2), (size, size), dtype=torch.float64)
    return net, DeviceImages(pixels), batch, draws(8, 4, 3, size, size).double(), params


@pytest.mark.parametrize("name", ["MLP", "LeNet", "AlexNet", "AlexNetBN"])
def test_distribution_matching_is_the_literal_loop(name):
    net, real, batch, synthetic, params = problem(name)
    net.requires_grad_(False)
    segments = debias.mode("fairdd").segments(batch)
    loss, gradient = dm.loss_and_gradient(net, real, segments, synthetic, params)
    images = synthetic.clone().requires_grad_()
    truth = ORACLES["dm"](net, real.pixels, segments, images, params)
    assert abs(loss - truth) <= 1e-12 * truth
    (expected,) = torch.autograd.grad(truth, images)
    assert (gradient - expected).norm() <= 1e-12 * expected.norm()


@pytest.mark.parametrize("name", ["MLP", "LeNet", "AlexNet", "AlexNetBN"])
def test_gradient_matching_is_the_literal_loop(name):
    net, real, batch, synthetic, params = problem(name)
    if name == "AlexNetBN":
        dc.calibrate_norms(net, real, batch.rows)
    segments = debias.mode("none").segments(batch)
    loss, gradient = dc.loss_and_gradient(net, real, segments, synthetic, params)
    images = synthetic.clone().requires_grad_()
    truth = ORACLES["dc"](net, real.pixels, segments, images, params)
    assert abs(loss - truth) <= 1e-10 * abs(truth)
    (expected,) = torch.autograd.grad(truth, images)
    assert (gradient - expected).norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("name", ["MLP", "LeNet"])
def test_trajectory_matching_takes_them(name):
    net, _, _, synthetic, _ = problem(name)
    theta = torch.cat([p.detach().flatten() for p in net.parameters()])
    labels, rows = torch.tensor([0, 0, 1, 1]), [torch.arange(4)] * 2
    params = [ops.dsa_params("flip", rng.lanes(i, 4), (16, 16), dtype=torch.float64) for i in range(2)]
    step = torch.tensor(0.01, dtype=torch.float64)
    results = [
        unroll.loss_and_gradients(net, theta, 1.01 * theta, synthetic, labels, step, rows, params, unroll=kind)
        for kind in ("exact", "full")
    ]
    (loss, gradients), (expected_loss, expected) = results
    assert abs(loss - expected_loss) <= 1e-12 * expected_loss
    assert (gradients.images - expected.images).norm() <= 1e-10 * expected.images.norm()


@pytest.mark.parametrize(("name", "method"), [("MLP", "dm"), ("LeNet", "dsa"), ("AlexNetBN", "dm")])
def test_they_are_distilled_and_evaluated(name, method):
    digits = fastdd.data.load("c-digits")
    digits = replace(digits, test=digits.test.take(np.arange(40)))
    settings = {"iterations": 1, "batch_real": 4, **({"outer_loop": 2, "inner_loop": 1} if method == "dsa" else {})}
    made = fastdd.distill(digits, method=method, debias="fairdd", ipc=1, arch=name, **settings)
    assert not torch.equal(made.images, random_set(digits, 1, 0).images)
    result = fastdd.evaluate(made, digits, arch=name, nets=1, epochs=1)
    assert result.arch == name
    assert 0 <= result.metrics()[0].accuracy <= 100


def test_the_chunk_of_an_mlp_is_that_of_its_largest_layer():
    net = models.build("MLP", 3, 10)
    assert models.chunk_size(net, torch.empty(1000, 3, 32, 32)) == 2**23 // (4 * 3 * 32 * 32)


def test_resnet50_is_that_of_imagenet(tmp_path):
    """As many parameters as published; a state dict of torchvision's names fills all of it."""
    net = models.build("ResNet50ImageNet", 3, 1000, (64, 64))
    assert sum(p.numel() for p in net.parameters()) == 25_557_032
    theirs = {
        name.replace("shortcut.", "downsample.").replace("classifier.", "fc."): value.new_full(value.shape, 1)
        for name, value in net.state_dict().items()
    }
    assert {"conv1.weight", "layer1.0.downsample.1.running_var", "layer4.2.conv3.weight", "fc.bias"} <= theirs.keys()
    save_file(theirs, tmp_path / "w.safetensors")
    assert load_weights(net, tmp_path / "w.safetensors", read=lambda path: pytest.fail("not torch.save's")) == []
    assert all((value == 1).all() for value in net.state_dict().values())


@pytest.mark.parametrize("name", ["MLP", "LeNet", "AlexNetBN", "ConvNet", "VGG11BN", "ResNet18BN", "ViT1"])
def test_a_network_of_its_own_weights_is_whole(name, tmp_path):
    """AlexNet's last layer is ``fc``, as that of torchvision's ResNets is, which is ``classifier`` here."""
    net, other = (models.build(name, 3, 10, key=key) for key in (1, 2))
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    assert load_weights(other, tmp_path / "w.safetensors", read=torch.load) == []
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())
