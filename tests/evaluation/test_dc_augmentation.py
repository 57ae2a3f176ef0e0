"""DC's augmentation of single images: the operations as published, image by image, and where evaluation uses it."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastdd import models
from fastdd.core import rng
from fastdd.data import DeviceImages, SyntheticSet, load
from fastdd.data.initial import random_set
from fastdd.evaluation import DcAugmentation, Protocol, dc_augmentation, plan_evaluation
from fastdd.evaluation.protocol import train

KEY = (3, "test", 1, 4)


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def literal(x, chosen, numbers, noise):
    """The published function, given what was drawn; ``noise`` for the images that get it, in order."""
    x, noise = x.clone(), iter(noise)
    channels, height, width = x.shape[1:]
    means = [float(x[:, c].mean()) for c in range(channels)]
    for i, (name, (a, b)) in enumerate(zip(chosen, numbers, strict=True)):
        if name == "crop":
            padded = torch.tensor(means).view(-1, 1, 1).repeat(1, height + 8, width + 8)
            padded[:, 4 : 4 + height, 4 : 4 + width] = x[i]
            x[i] = padded[:, int(a) : int(a) + height, int(b) : int(b) + width]
        elif name == "scale":
            h, w = int(a * height), int(b * height)
            side = max(h, w, height, width)
            canvas = torch.zeros(channels, side, side)
            top, left = (side - h) // 2, (side - w) // 2
            canvas[:, top : top + h, left : left + w] = F.interpolate(x[i : i + 1], [h, w])[0]
            top, left = (side - height) // 2, (side - width) // 2
            x[i] = canvas[:, top : top + height, left : left + width]
        elif name == "rotate":
            turned = scipy.ndimage.rotate(x[i].numpy(), int(a), axes=(-2, -1), cval=np.mean(means))
            top, left = (turned.shape[1] - height) // 2, (turned.shape[2] - width) // 2
            x[i] = torch.tensor(turned[:, top : top + height, left : left + width])
        elif name == "noise":
            x[i] += 0.001 * next(noise)
    return x


@pytest.mark.parametrize("strategy", ["crop_scale_rotate", "crop_noise", "crop_scale_rotate_noise"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 17)])
def test_a_batch_is_augmented_as_published(strategy, shape):
    x, own = images(40, *shape), DcAugmentation(strategy)
    chosen, numbers = dc_augmentation.draw(40, own, rng.key(3, "test-dc-augment", 1, 4))
    assert set(chosen) == set(strategy.split("_"))
    noisy = (chosen == "noise").sum()
    noise = rng.normal(rng.key(3, "test-dc-noise", 1, 4), int(noisy * np.prod(shape))).view(-1, *shape)
    expected = literal(x, chosen, numbers, noise)
    torch.testing.assert_close(dc_augmentation.dc_augment(own, x.clone(), KEY), expected, rtol=0, atol=1e-6)


def test_draws_are_functions_of_the_key():
    own = DcAugmentation("crop_scale_rotate_noise")
    first, again, other = (
        dc_augmentation.dc_augment(own, images(20, 1, 12, 12), key) for key in (KEY, KEY, (3, "test", 1, 5))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@settings(deadline=None, max_examples=60)
@given(side=st.integers(2, 33), degrees=st.integers(-180, 180))
def test_rotation_is_scipys(side, degrees):
    x = images(2, 2, side, side)
    turned = scipy.ndimage.rotate(x.numpy(), degrees, axes=(-2, -1), cval=0.3)
    first = (turned.shape[2] - side) // 2
    expected = torch.from_numpy(turned[:, :, first : first + side, first : first + side])
    got = dc_augmentation._rotated(x, np.array([degrees, degrees]), 0.3)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


def test_networks_train_on_it(digits):
    subset, strategy = random_set(digits, 3), "crop_scale_rotate"
    protocol = Protocol(epochs=1, batch=16, dsa_strategy="none", dc_strategy=strategy)
    ours, net = (models.build("ConvNetD2", 3, 10, (16, 16), width=8, key=1) for _ in range(2))
    before = subset.images.clone()
    train(ours, DeviceImages(subset.images), subset.labels, protocol, (0, "test", 0))
    assert torch.equal(subset.images, before)

    sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for epoch in range(2):
        for batch, rows in enumerate(rng.permutation(rng.key(0, "test", 0, epoch), 30).split(16)):
            drawn = dc_augmentation.draw(
                len(rows), DcAugmentation(strategy), rng.key(0, "test-dc-augment", 0, epoch, batch)
            )
            loss = nn.CrossEntropyLoss()(net(literal(subset.images[rows], *drawn, ())), subset.labels[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    for own, expected in zip(ours.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("protocol", "method", "dataset", "given", "expected", "epochs"),
    [
        ("dc", "dc", "mnist", {}, "crop_scale_rotate", 1000),
        ("dc", "dc", "mnist", {"arch": "convnetbn"}, "crop_noise", 1000),
        ("dc", "dc", "fashion-mnist", {"arch": "ConvNetBN"}, "crop_noise", 1000),
        ("dc", "dc", "mnist", {"arch": "ConvNetASwishBN"}, "crop_scale_rotate", 1000),
        ("dc", "dc", "fashion-mnist", {}, "none", 300),
        ("dc", "dc", "c-mnist-fg", {}, "none", 300),
        ("fairdd", "dc", "c-mnist-fg", {"arch": "ConvNetBN"}, "crop_noise", 1000),
        ("dc", "dc", "mnist", {"dsa_strategy": "none"}, "none", 300),
        ("dc", "dc", "mnist", {"dsa_strategy": "crop"}, "none", 1000),
        ("dc", "dc", "mnist", {"epochs": 5}, "crop_scale_rotate", 5),
        ("dc", "dsa", "mnist", {}, "none", 1000),
        ("dc", "dm", "mnist", {}, "none", 1000),
        ("mtt", "dc", "mnist", {}, "none", 1000),
        (None, "dc", "mnist", {}, "none", 300),
    ],
)
def test_published_protocols_use_it_where_their_code_does(digits, protocol, method, dataset, given, expected, epochs):
    data = replace(digits, name=dataset)
    subset = random_set(data, 1)
    run = {"arch": "ConvNet", "dsa_strategy": "none" if method == "dc" else "color_crop"}
    made = SyntheticSet(subset.images, subset.labels, {**subset.metadata, "method": method, "run": run})
    trained = plan_evaluation(made, data, torch.device("cpu"), protocol=protocol, **given).protocol
    assert (trained.dc_strategy, trained.epochs) == (expected, epochs)


def test_bad_settings():
    with pytest.raises(ValueError, match="dc_strategy 'crop_blur': 'blur' is not one of crop, scale, rotate, noise"):
        Protocol(dsa_strategy="none", dc_strategy="crop_blur")
    with pytest.raises(ValueError, match="one augmentation: dc_strategy 'crop' goes with dsa_strategy 'none'"):
        Protocol(dsa_strategy="flip", dc_strategy="crop")


@pytest.mark.gpu
def test_on_a_gpu_it_is_that_of_the_cpu():
    own = DcAugmentation("crop_scale_rotate_noise")
    cpu, gpu = (dc_augmentation.dc_augment(own, images(30, 3, 16, 16).to(device), KEY) for device in ("cpu", "cuda"))
    torch.testing.assert_close(gpu.cpu(), cpu, rtol=0, atol=1e-6)
