"""Barycenter: one target a class, the mean of its groups' means; its gradient is fairdd's divided by their number."""

import dataclasses

import pytest
import torch

import fastdd
from fastdd.data.initial import random_set
from fastdd.debias import Batch, mode
from fastdd.methods import METHODS, Context, configure

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return fastdd.data.load("c-digits")


def batch(classes: list[int], groups: list[int], num_classes: int, num_groups: int) -> Batch:
    rows = torch.arange(len(classes))
    return Batch(rows, torch.tensor(classes), torch.tensor(groups), num_classes, num_groups)


def test_groups_weigh_alike_in_one_segment_a_class():
    segments = mode("barycenter").segments(batch([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1], 2, 2))
    assert segments.offsets.tolist() == [0, 4, 6]
    torch.testing.assert_close(segments.weights, torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2, 1 / 2, 1 / 2]))


def test_weights_of_samples_count_within_their_group():
    weighted = dataclasses.replace(batch([0, 0, 0], [0, 0, 1], 1, 2), weights=torch.tensor([1.0, 3.0, 7.0]))
    segments = mode("barycenter").segments(weighted)
    torch.testing.assert_close(segments.weights, torch.tensor([1 / 8, 3 / 8, 1 / 2]))


def test_a_class_that_the_batch_lacks_is_an_empty_segment():
    segments = mode("barycenter").segments(batch([1, 1], [0, 1], 3, 2))
    assert segments.present.tolist() == [False, True, False]


def first_step(digits, debias: str, **settings):
    """The gradient of DM's first step, and the method after it."""
    usual = {"ipc": 2, "iterations": 1, "batch_real": 30, "sampling": "stratified", "width": 8, "depth": 2}
    config = configure(**{"dataset": "c-digits", "debias": debias, "momentum": 0.0, **usual, **settings})
    method = METHODS["dm"](config, Context(digits, CPU, random_set(digits, 2).images))
    method.step(0)
    return method.momentum, method


def test_the_gradient_is_that_of_fairdd_divided_by_the_groups(digits):
    barycenter, fair = (first_step(digits, debias)[0] for debias in ("barycenter", "fairdd"))
    vanilla = first_step(digits, "none", sampling="random")[0]
    error = (barycenter - fair / digits.num_groups).norm() / barycenter.norm()
    assert error < 2e-6
    assert (vanilla - barycenter).norm() / barycenter.norm() > 0.1


def test_networks_that_have_seen_the_synthetic_images_are_trained_ones(digits):
    """COBRA's warm start: every step's network first trains on the images as they are, by plain SGD."""
    fresh, warmed = (first_step(digits, "barycenter", embed_warmup=n, dsa_strategy="none")[1] for n in (0, 3))
    images, labels = random_set(digits, 2).images, torch.arange(10).repeat_interleave(2)
    net = fresh._networks.at(0).requires_grad_(True)
    sgd = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(3):  # 20 images are one batch, whose order is that of a sum
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        sgd.step()
    start = torch.cat([p.detach().flatten() for p in net.parameters()])
    warm = torch.cat([p.flatten() for p in warmed._networks.net.parameters()])
    torch.testing.assert_close(warm, start, rtol=1e-4, atol=1e-6)
    assert not any(p.requires_grad for p in warmed._networks.net.parameters())
