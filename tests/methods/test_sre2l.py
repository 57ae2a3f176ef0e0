"""SRe2L: its loss against hooks that write the published ones down, its course, and its augmentation."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import made, teacher, tiny

from fastdd import models
from fastdd.core import rng
from fastdd.methods import METHODS, Teacher
from fastdd.methods.decoupled import Unit

COLOUR = made("colour")
run = partial(tiny, "sre2l", iterations=3, jitter=2, batch_classes=100, r_bn=0.05, first_bn=10.0)


def method(config):
    return METHODS["sre2l"](config, COLOUR, teacher("colour"))


def literal_loss(images, labels, config, net) -> torch.Tensor:
    """Cross-entropy, and of every batch norm's input the distances of its statistics, in float64."""
    found, hooks = [], []

    def see(norm, inputs, output):
        x = inputs[0].double().transpose(0, 1).flatten(1)
        var, mean = x.var(1, unbiased=False), x.mean(1)
        found.append((norm.running_var - var).norm() + (norm.running_mean - mean).norm())

    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            hooks.append(layer.register_forward_hook(see))
    logits = net(images)
    for hook in hooks:
        hook.remove()
    weights = [config.first_bn, *[1.0] * (len(found) - 1)]
    return F.cross_entropy(logits, labels) + config.r_bn * sum(a * b for a, b in zip(weights, found, strict=True))


def test_the_loss_is_that_of_the_published_hooks():
    config, labels = run(), torch.arange(3)
    images = rng.normal(rng.key(0, "images"), 3 * 192).view(3, 3, 8, 8)
    found, expected = method(config).loss(images, labels), literal_loss(images, labels, config, teacher("colour").net)
    assert abs(found.double() - expected) < 1e-6 * expected
    without = method(run(r_bn=0.0)).loss(images, labels)
    assert torch.equal(without, F.cross_entropy(teacher("colour").net(images), labels))


def test_a_unit_is_the_published_course_literally():
    """Adam whose rate falls by a cosine, and values put back after each iteration; augmented as its keys say."""
    config = run()
    one = method(config)
    unit = Unit(range(3), range(1, 2))
    found, _ = one.make(unit)
    keys = rng.lanes(rng.key(config.seed, "noise", 1), 3)
    images = rng.normal(keys, 192).view(3, 3, 8, 8).requires_grad_()
    adam = torch.optim.Adam([images], lr=config.lr_img, betas=(0.5, 0.9), eps=1e-8)
    low, high = -0.5 / 0.5, (1 - 0.5) / 0.5
    for iteration in range(3):
        adam.param_groups[0]["lr"] = 0.5 * (1 + math.cos(math.pi * iteration / 3)) * config.lr_img
        seen = one._augmented(images, rng.key(config.seed, "recovery", 1, 0, iteration), 0.08)
        adam.zero_grad()
        literal_loss(seen, torch.arange(3), config, teacher("colour").net).backward()
        adam.step()
        images.data.clamp_(low, high)
    assert (found - images.detach()).abs().max() < 1e-4
    assert low <= found.min()
    assert found.max() <= high


def test_images_are_learned_and_do_not_depend_on_the_chunks_of_other_numbers():
    config = run(iterations=40, ipc=2, batch_classes=2, lr_img=0.1)
    one = method(config)
    assert [unit.rows(2) for unit in one.units] == [[0, 2], [4], [1, 3], [5]]
    images, _ = one.make(one.units[0])
    labels = torch.arange(2)
    noise = rng.normal(rng.lanes(rng.key(config.seed, "noise", 0), 2), 192).view(2, 3, 8, 8)
    assert one.loss(images, labels) < one.loss(noise, labels)


def test_the_curriculum_of_crops():
    usual = run(iterations=10)
    assert [usual.smallest_crop(i) for i in (0, 9)] == [0.08, 0.08]
    cda = run(iterations=10, curriculum="cosine")
    assert cda.smallest_crop(0) == 1
    assert cda.smallest_crop(5) == pytest.approx(0.08 + 0.92 / 2)
    step = run(iterations=10, curriculum="step", milestone=0.5)
    assert [step.smallest_crop(i) for i in (4, 5)] == [1, 0.08]
    assert run(iterations=10, curriculum="linear", milestone=0.5).smallest_crop(1) == pytest.approx(0.08 + 0.92 * 0.8)


def test_an_augmentation_is_that_of_the_whole_batch():
    one = method(run())
    images = torch.ones(3, 3, 8, 8) * torch.arange(3.0).view(3, 1, 1, 1)
    assert (one._augmented(images, 5, 0.08) - images).abs().max() < 1e-6
    same = rng.normal(rng.key(1, "same"), 192).view(1, 3, 8, 8).expand(3, -1, -1, -1)
    found = one._augmented(same, 6, 0.08)
    assert torch.equal(found[0], found[1])


def test_what_does_not_fit_is_refused_in_one_line():
    net = models.build("ConvNet", 3, 3, (8, 8), width=4, depth=2).eval().requires_grad_(False)
    with pytest.raises(ValueError, match=r"the teacher \./net has no batch norms, .*\(fastdd train --arch ConvNetBN\)"):
        METHODS["sre2l"](run(), COLOUR, Teacher(net, "./net", ""))
    with pytest.raises(ValueError, match="not fairdd: it looks at no real images"):
        run(debias="fairdd")
    with pytest.raises(ValueError, match=r"milestone 0\.5 is of a curriculum"):
        run(milestone=0.5)
