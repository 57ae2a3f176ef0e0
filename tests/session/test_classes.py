"""Steps on some of the classes: exactly what the step on all of them does to those."""

from functools import partial

import pytest
import torch

from fastdd import debias, models, ops
from fastdd.core import ranks, rng
from fastdd.data import Dataset, DeviceImages, load
from fastdd.data.initial import random_set
from fastdd.methods import METHODS, Context, Settings, configure, dm
from fastdd.methods.parts.training import train_epoch
from fastdd.session.run import shares

STEPS = 2  # with a training of the network between them
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


def make(config, dataset, device, images, weights=None, classes=None, gather=None):
    """The method of a run, on some of the classes."""
    return METHODS[config.method](config, Context(dataset, device, images, weights, classes=classes, gather=gather))


def problem(data: Dataset, method: str, debias: str = "none", sampling: str = "random", **settings):
    """A run's configuration, its first images, and weights where it takes them."""
    config = configure(
        **{
            "dataset": data.name,
            "method": method,
            "debias": debias,
            "sampling": sampling,
            "ipc": 3,
            "iterations": 1,
            "batch_real": 7,
            "width": 16,
            "depth": 2,
            **({} if method == "dm" else {"outer_loop": 3, "inner_loop": 1}),
            **settings,
        }
    )
    weights = rng.uniform(rng.key(1, "weights"), len(data.train)) + 0.01 if debias == "kde" else None
    return config, random_set(data, config.ipc).images, weights


SETTINGS = [
    ("dm", "none", "random"),
    ("dm", "fairdd", "stratified"),
    ("dm", "fairdd-iw", "random"),
    ("dm", "fairdd-ldam", "random"),
    ("dm", "fairdd-groupdro", "random"),
    ("dm", "kde", "random"),
    ("dm", "kde", "weighted"),
    ("dc", "none", "random"),
    ("dc", "fairdd-groupdro", "random"),
    ("dsa", "fairdd", "stratified"),
    ("dsa", "kde", "random"),
]


@pytest.mark.parametrize("setting", SETTINGS, ids="-".join)
def test_ranges_of_classes_have_the_bits_of_the_whole(digits, setting):
    """Two processes' steps, one after the other: each its classes, and the others' images before a training."""
    config, images, weights = problem(digits, *setting)
    whole = make(config, digits, CPU, images, weights)
    ranges = range(0, 3), range(3, 10)
    parts = [make(config, digits, CPU, images, weights, classes=classes) for classes in ranges]
    assert whole.classes == range(10)
    for number in range(STEPS):
        before = whole.images.detach().clone()
        loss = whole.match(number)
        losses = [part.match(number) for part in parts]
        torch.testing.assert_close(sum(losses), loss, rtol=1e-6, atol=0)
        for part, other in zip(parts, reversed(ranges), strict=True):
            own, others = (slice(3 * classes.start, 3 * classes.stop) for classes in (part.classes, other))
            assert torch.equal(part.images[own], whole.images[own])
            assert torch.equal(part.momentum[own], whole.momentum[own])
            assert torch.equal(part.images[others], before[others])
            assert not part.momentum[others].any()
        assert not torch.equal(whole.images, before)
        for part in parts:
            part.images.detach().copy_(whole.images.detach())
        if config.method != "dm":
            for stepper in (whole, *parts):
                stepper._networks.train(number)


def test_images_are_gathered_before_every_training_and_not_otherwise(digits):
    config, images, _ = problem(digits, "dc")
    calls = []

    def gather():
        calls.append(part.images.detach().clone())
        part.images.detach().copy_(whole.images.detach())

    whole = make(config, digits, CPU, images)
    part = make(config, digits, CPU, images, classes=range(4, 10), gather=gather)
    for number in range(6):
        whole.step(number)
        part.step(number)
        assert len(calls) == [1, 2, 2, 3, 4, 4][number]
    assert torch.equal(part.images[12:], whole.images[12:])


@pytest.mark.parametrize(
    "setting", [SETTINGS[1], SETTINGS[4], SETTINGS[6], SETTINGS[-2], ("dc", "none", "random")], ids="-".join
)
def test_streamed_pixels_have_the_bits_of_resting_ones(digits, setting, monkeypatch):
    config, images, weights = problem(digits, *setting)
    resting = make(config, digits, CPU, images, weights)
    monkeypatch.setattr(DeviceImages, "of", partial(DeviceImages.of, stream=True))
    streamed = make(config, digits, CPU, images, weights)
    for number in range(STEPS):
        assert torch.equal(resting.step(number), streamed.step(number))
    assert torch.equal(resting.images, streamed.images)


def test_training_on_streamed_pixels_has_the_bits_of_training_on_resting_ones(digits):
    some = slice(0, 60)
    labels = torch.as_tensor(digits.train.labels[some])
    nets = []
    for stream in (False, True):
        images = DeviceImages.of(digits.train.images[some], digits.mean, digits.std, stream=stream)
        nets.append(models.build("ConvNet", 3, 10, (16, 16), width=8, depth=2, key=5))
        sgd = torch.optim.SGD(nets[-1].parameters(), lr=0.01)
        train_epoch(nets[-1], images, labels, sgd, batch=16, dsa_strategy="color_flip", key=(0, "test", 0))
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("classes", [range(0, 0), range(3, 11), range(-1, 3), range(0, 6, 2)])
def test_classes_that_are_none(digits, classes):
    config, images, _ = problem(digits, "dm")
    with pytest.raises(ValueError, match="classes must be consecutive ones of the 10 that there are, not range"):
        make(config, digits, CPU, images, classes=classes)


def test_ranks_share_the_classes_of_a_method_that_draws_no_real_images(digits, monkeypatch):
    class Plain(METHODS["dm"]):
        Settings = Settings

    monkeypatch.setitem(METHODS, "plain", Plain)
    monkeypatch.setattr(ranks, "world", lambda: 2)
    common = {"dataset": "c-digits", "ipc": 1, "arch": "ConvNet", "init": "noise", "dsa_strategy": "none"}
    config = Settings(method="plain", iterations=1, lr_img=1.0, momentum=0.5, **common)
    assert shares(config, digits) == [range(0, 5), range(5, 10)]


def test_trajectories_need_all_classes(digits):
    config = configure(dataset="c-digits", method="mtt", ipc=1)
    with pytest.raises(ValueError, match="mtt is on the images of all classes"):
        make(config, digits, CPU, torch.zeros(10, 3, 16, 16), classes=range(5))


@pytest.mark.parametrize("name", ["ConvNet", "ConvNetBN", "ConvNetASwish"])
@pytest.mark.parametrize("mode", ["none", "fairdd-groupdro"])
def test_classes_at_a_time_do_not_change_a_step(digits, name, mode):
    """To the bit where convolutions are this package's; to rounding where PyTorch's are as many images as there are."""
    total, ipc, classes = 60, 2, 6
    net = models.build(name, 3, 10, (16, 16), width=16, depth=2, key=5).requires_grad_(False)
    real = DeviceImages.of(digits.train.images[:total], digits.mean, digits.std)
    counts = torch.full((classes, 2), total // classes // 2)
    rows = torch.arange(total)
    batch = debias.Batch(rows, rows // (total // classes), rows % 2, classes, 2, counts)
    images = rng.normal(3, classes * ipc * 3 * 16 * 16).view(-1, 3, 16, 16)
    params = ops.dsa_params("color_crop_cutout_flip_scale_rotate", rng.lanes(4, classes), (16, 16))
    segments = debias.mode(mode).segments(batch)
    loss, gradient = dm.loss_and_gradient(net, real, segments, images, params)
    for at_once in (1, 4):
        other_loss, other = dm.loss_and_gradient(net, real, segments, images, params, at_once=at_once)
        assert (other - gradient).norm() <= 1e-6 * gradient.norm()
        assert abs(other_loss - loss) <= 1e-6 * loss
        if name != "ConvNetASwish":
            assert torch.equal(other, gradient)
            assert torch.equal(other_loss, loss)
