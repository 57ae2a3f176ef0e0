"""Fused blocks against the same layers one after the other, whatever is done to the network."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastdd import models, ops
from fastdd.core import rng
from fastdd.models.blocks import Blocks, run_block


def net(name="ConvNet", channels=3, size=16, width=16, **options):
    built = models.build(name, channels, 5, (size, size), key=3, width=width, **options)
    for layer in built.modules():  # norms that do something
        if isinstance(layer, nn.GroupNorm):
            layer.weight.data += 0.3 * draws(1, len(layer.weight))
            layer.bias.data += 0.3 * draws(2, len(layer.bias))
    return built


def draws(number, *shape):
    return rng.normal(rng.key(number, "blocks"), torch.Size(shape).numel()).view(shape)


def plain(model, x):
    """The layers one after the other, by PyTorch's own convolutions."""
    layers = [as_torch(layer) for layer in model.features]
    return model.classifier(nn.Sequential(*layers)(x).flatten(1))


def as_torch(layer):
    if type(layer) is not ops.Conv2d:
        return layer
    return lambda_module(lambda x: F.conv2d(x, layer.weight, layer.bias, padding=layer.padding))


def lambda_module(function):
    module = nn.Module()
    module.forward = function
    return module


def close(ours, truth, factor=3e-6):
    return (ours - truth).abs().max() <= factor * truth.abs().max()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["ConvNet", "ConvNetMP", "ConvNetNP"])
@pytest.mark.parametrize("images", [1, 70])
def test_values_and_gradients_are_the_layers(name, channels, images):
    model, x = net(name, channels), draws(3, images, channels, 16, 16)
    labels = torch.arange(images) % 5
    double = copy.deepcopy(model).double()
    truth = plain(double, x.double())
    assert close(model(x), truth)
    with torch.no_grad():
        assert close(model(x), truth)
    found = torch.autograd.grad(F.cross_entropy(model(x), labels), [*model.parameters()])
    expected = torch.autograd.grad(F.cross_entropy(truth, labels), [*double.parameters()])
    norm = torch.cat([g.flatten() for g in expected]).norm()
    difference = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)]).norm()
    assert difference <= 1e-5 * norm


@pytest.mark.parametrize("name", ["ConvNet", "ConvNetMP"])
def test_second_order_in_images_and_parameters_is_exact_in_fp64(name):
    model, x = net(name, width=4).double(), draws(4, 3, 3, 16, 16).double().requires_grad_()

    def second(logits):
        parameters = [*model.parameters()]
        grads = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([0, 1, 4])), parameters, create_graph=True)
        value = sum((g * draws(i, *g.shape).double()).sum() for i, g in enumerate(grads))
        return torch.autograd.grad(value, [x, *parameters], allow_unused=True, materialize_grads=True)

    for ours, truth in zip(second(model(x)), second(plain(model, x)), strict=True):
        assert (ours - truth).abs().max() <= 1e-12 * max(1.0, truth.abs().max())


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("images", [2, 40])
def test_hooks_see_what_the_layer_returns(layer, images):
    model, x = net(), draws(5, images, 3, 16, 16)
    expected = model.features[:layer](x) if layer else x
    expected = as_torch(model.features[layer])(expected)
    seen = []
    handles = [
        model.features[layer].register_forward_hook(lambda module, args, out: seen.append(out.clone())),
        model.features[layer].register_forward_pre_hook(lambda module, args: seen.append(args[0].clone())),
        model.features.register_forward_hook(lambda module, args, out: seen.append(out)),
    ]
    with torch.no_grad():
        model(x)
    assert len(seen) == 3
    assert close(F.relu(seen[1]), F.relu(expected), 1e-5)  # the norm's output is activated in place
    assert close(model.classifier(seen[2].flatten(1)), plain(model, x))
    for handle in handles:
        handle.remove()


def test_a_hook_that_changes_an_output_changes_the_result():
    model, x = net(), draws(6, 40, 3, 16, 16)
    with torch.no_grad():
        before = model(x)
        for layer in model.features[:4]:
            handle = layer.register_forward_hook(lambda module, args, out: 2 * out + 1)
            assert not close(model(x), before, 1e-2) or type(layer) is ops.Conv2d  # whose scale and shift a norm undoes
            assert close(model(x), plain_through_calls(model, x))
            handle.remove()
        assert torch.equal(model(x), before)


def plain_through_calls(model, x):
    for layer in model.features:
        x = layer(x)
    return model.classifier(x.flatten(1))


def test_backward_hooks_and_global_hooks_fire():
    model, x = net(), draws(7, 2, 3, 16, 16)
    seen = []
    handle = model.features[3].register_full_backward_hook(lambda module, inputs, outputs: seen.append(module))
    model(x).sum().backward()
    assert seen == [model.features[3]]
    handle.remove()
    called = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: called.append(module))
    try:
        model(draws(7, 40, 3, 16, 16))
    finally:
        handle.remove()
    assert {*model.features} <= {*called}


@pytest.mark.parametrize("images", [2, 40])
@pytest.mark.parametrize(
    ("index", "layer"),
    [
        (0, nn.Conv2d(3, 16, 5, padding=2)),
        (1, nn.BatchNorm2d(16, affine=False)),
        (1, nn.GroupNorm(4, 16)),
        (1, nn.GroupNorm(16, 16, affine=False)),
        (2, nn.LeakyReLU()),
        (3, nn.AvgPool2d(3, 2, 1)),
        (3, nn.AvgPool2d(2, divisor_override=3)),
        (3, nn.MaxPool2d(2)),
        (3, nn.MaxPool2d(3, 2, 1)),
        (5, nn.Identity()),
        (0, nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 16, 3, padding=1))),
    ],
)
def test_swapped_layers_are_what_runs(index, layer, images):
    model, x = net(), draws(8, images, 3, 16, 16)
    model.features[index] = layer
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert close(model(x), plain(model, x))


def test_a_layer_with_a_forward_of_its_own_is_called():
    model, x = net(), draws(9, 40, 3, 16, 16)
    model.features[2].forward = lambda t: t.square()
    assert close(model(x), plain(model, x))


def test_writes_past_autograd_are_seen():
    """A parameter's .data, or its memory, may be written to between two calls, which no version counter tells."""
    model, x = net().requires_grad_(False), draws(10, 64, 3, 16, 16)
    before = model.embed(x)
    assert torch.equal(model.embed(x), before)
    model.features[4].weight.data.mul_(-1)
    model.features[5].bias.data.add_(0.5)
    assert close(model(x), plain(model, x))
    assert not close(model.embed(x), before, 0.01)


def test_autocast_is_the_layers():
    model, x = net(), draws(11, 40, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        ours, layers = model(x), plain_through_calls(model, x.contiguous(memory_format=torch.channels_last))
    assert ours.dtype == layers.dtype == torch.bfloat16
    assert torch.equal(ours, layers)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.bfloat16, 0.05)])
def test_networks_of_other_dtypes(dtype, bound):
    model, x = net().to(dtype), draws(12, 40, 3, 16, 16).to(dtype)
    truth = plain(copy.deepcopy(model).double(), x.double())
    ours = model(x)
    assert ours.dtype == dtype
    assert (ours - truth).abs().max() <= bound * truth.abs().max()


def test_copies_pickles_and_saved_networks():
    model, x = net(), draws(13, 4, 3, 16, 16)
    model(draws(13, 40, 3, 16, 16))
    expected = model(x)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)
    for other in copies:
        assert torch.equal(other(x), expected)
        other.features[0].weight.data.zero_()
    assert torch.equal(model(x), expected)


def test_plain_tensors_in_the_parameters_places():
    model, x = net(), draws(14, 2, 3, 16, 16)
    names, values = zip(*model.named_parameters(), strict=True)
    theta = torch.cat([value.detach().flatten() for value in values]).requires_grad_()
    expected = torch.autograd.grad(F.cross_entropy(model(x), torch.tensor([1, 2])), [*values])
    for name, part, value in zip(names, theta.split([v.numel() for v in values]), values, strict=True):
        path, _, own = name.rpartition(".")
        layer = model.get_submodule(path)
        delattr(layer, own)
        setattr(layer, own, part.view_as(value))
    (found,) = torch.autograd.grad(F.cross_entropy(model(x), torch.tensor([1, 2])), theta)
    assert torch.equal(found, torch.cat([g.flatten() for g in expected]))


def test_transforms_of_torch_func():
    model, x, labels = net(width=4).double(), draws(15, 3, 3, 16, 16).double(), torch.tensor([0, 1, 2])
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(values, images, targets):
        return F.cross_entropy(torch.func.functional_call(model, values, (images,)), targets)

    truth = torch.autograd.grad(F.cross_entropy(plain(model, x), labels), [*model.parameters()])
    for found, expected in zip(torch.func.grad(loss)(parameters, x, labels).values(), truth, strict=True):
        assert (found - expected).abs().max() <= 1e-12
    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x[:, None], labels[:, None])
    for found, expected in zip(each.values(), truth, strict=True):
        assert (found.mean(0) - expected).abs().max() <= 1e-12
    _, tangent = torch.func.jvp(lambda images: loss(parameters, images, labels), (x,), (torch.ones_like(x),))
    images = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(parameters, images, labels), images)
    assert abs(tangent - slope.sum()) <= 1e-12


def test_a_slice_of_the_features_is_the_layers_of_it():
    model, x = net(), draws(16, 40, 3, 16, 16)
    with torch.no_grad():
        for end in (1, 2, 3, 4, 7):
            part = model.features[:end]
            assert isinstance(part, Blocks)
            layers = nn.Sequential(*map(as_torch, part))
            assert close(part(x), layers(x), 1e-5)


def test_two_runs_are_bitwise_equal():
    model, x = net(), draws(17, 70, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
    first, second = (torch.autograd.grad(model(x).square().sum(), [*model.parameters()]) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("name", ["ConvNet", "ConvNetMP", "ConvNetNP", "ConvNetBN", "ConvNetAL", "ConvNetAS", "VGG11"])
def test_stages_are_what_every_activation_returns(name):
    size = 32 if name == "VGG11" else 16
    model = models.build(name, 3, 10, (size, size), key=1).double()
    x = draws(1, 4, 3, size, size).double()
    expected = []
    for layer in model.features:
        if isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.Sigmoid):
            layer.register_forward_hook(lambda layer, inputs, output: expected.append(output.detach().clone()))
    embedding = model.embed(x).detach()
    for layer in model.features:
        layer._forward_hooks.clear()
    assert len(expected) > 1
    for maps, last in (model.stages(x), model.prepared_stages()(x)):
        for found, right in zip([*maps, last], [*expected, embedding], strict=True):
            assert (found - right).abs().max() <= 1e-12 * (1 + right.abs().max())


def test_prepared_stages_in_other_dtypes():
    model = net()
    x = draws(1, 4, 3, 16, 16)
    maps, embedding = model.stages(x)
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        prepared, last = model.prepared_stages(dtype)(x.to(dtype))
        for found, right in zip([*prepared, last], [*maps, embedding], strict=True):
            assert found.dtype == dtype
            assert not found.requires_grad
            assert (found.float() - right).norm() <= bound * right.norm()


@pytest.mark.parametrize("pool", [nn.AvgPool2d(4), nn.MaxPool2d(3, 2, 1)])
def test_the_stem_of_large_images_is_as_exact_as_the_layers(pool):
    conv, norm = nn.Conv2d(3, 8, 7, padding=3, bias=False), nn.GroupNorm(8, 8)
    layers = nn.Sequential(conv, norm, nn.ReLU(), pool)
    images = draws(3, 2, 3, 224, 224)
    with torch.no_grad():
        norm.bias += draws(4, 8)
        truth, by_layers = copy.deepcopy(layers).double()(images.double()), layers(images)
        found = run_block(images.contiguous(memory_format=torch.channels_last), *layers)
    assert (found - truth).norm() <= 2 * (by_layers - truth).norm()
