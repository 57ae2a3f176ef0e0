"""Evaluation by other recipes than plain training."""

import dataclasses

import numpy as np
import pytest
import torch

import fastdd
from fastdd.data import SyntheticSet
from fastdd.data.initial import random_set, starting_groups
from fastdd.evaluation import Protocol

FAST = {"nets": 2, "epochs": 3, "width": 4, "depth": 1, "dsa_strategy": "none"}


@pytest.fixture(scope="module")
def digits():
    return fastdd.data.load("c-digits")


def right(evaluation):
    return [counts.right for counts in evaluation.counts]


def test_plain_training_is_what_it_was(digits):
    synthetic = random_set(digits, 2)
    for ours, theirs in zip(
        right(fastdd.evaluate(synthetic, digits, training="erm", **FAST)),
        right(fastdd.evaluate(synthetic, digits, **FAST)),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("training", ["lw", "resample", "groupdro", "lff", "dfa", "selecmix", "selecmix-lff"])
def test_a_set_of_real_images_is_trained_on_by_every_recipe(digits, training):
    synthetic = random_set(digits, 2)
    first = fastdd.evaluate(synthetic, digits, training=training, **FAST)
    again = fastdd.evaluate(synthetic, digits, training=training, **FAST)
    for ours, theirs in zip(right(first), right(again), strict=True):
        assert torch.equal(ours, theirs)
    assert first.protocol.training == training


def test_the_groups_of_first_images_follow_from_the_seed(digits):
    made = fastdd.distill(digits, ipc=3, iterations=1, width=4, depth=1, batch_real=4, seed=5)
    groups = starting_groups(made, digits)
    start = random_set(digits, 3, seed=5)
    # c-digits' groups are colours: an image of the group is that colour where it is brightest.
    for image, group, label in zip(start.images, groups, start.labels, strict=True):
        same = (digits.train.groups == group.item()) & (digits.train.labels == label.item())
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (digits.mean, digits.std))
        real = (torch.from_numpy(digits.train.images[same]).float() / 255 - mean) / std
        assert (real == image).flatten(1).all(1).any()
    noise = fastdd.distill(digits, ipc=1, iterations=1, width=4, depth=1, batch_real=4, init="noise")
    assert starting_groups(noise, digits) is None
    with pytest.raises(ValueError, match="training lw looks at groups, and those of these images are not known"):
        fastdd.evaluate(noise, digits, training="lw", **FAST)
    # Drawn group by group, and by a method that does not start from real images.
    assert starting_groups(random_set(digits, 3, balanced=True), digits) is None
    run = {"arch": "ConvNet", "dsa_strategy": "none"}
    of_crops = dataclasses.replace(start, metadata=start.metadata | {"method": "rded", "run": run})
    assert starting_groups(of_crops, digits) is None


def test_a_set_that_has_groups_is_trained_on_by_them(digits, tmp_path):
    """Those of its own, which its file keeps, or given; over those of the images that it started from."""
    synthetic = random_set(digits, 3)
    how = {**FAST, "nets": 1, "training": "lw"}
    started = starting_groups(synthetic, digits)
    alike = fastdd.evaluate(synthetic, digits, **how)
    assert alike.groups_from == "those of the real images that they were at first"
    metadata = synthetic.metadata | {"groups_from": "a probe's"}
    others = (started + torch.arange(len(started)) % 3) % digits.num_groups
    dataclasses.replace(synthetic, groups=others, metadata=metadata).save(tmp_path / "others")
    read = SyntheticSet.load(tmp_path / "others")
    assert torch.equal(read.groups, others)
    found = fastdd.evaluate(read, digits, **how)
    assert found.groups_from == "a probe's"
    assert not torch.equal(right(found)[0], right(alike)[0])
    np.save(tmp_path / "started.npy", started.numpy())
    given = fastdd.evaluate(read, digits, groups=tmp_path / "started.npy", **how)
    assert given.groups_from == "given, of started.npy"
    assert torch.equal(right(given)[0], right(alike)[0])
    assert fastdd.evaluate(read, digits, **{**how, "training": "erm"}).groups_from == ""  # it looks at none


def test_groups_of_a_set_that_are_none_are_refused(digits):
    synthetic = random_set(digits, 1)
    for groups, why in (
        (np.zeros(3, np.int64), r"groups must be 10 numbers from 0, one an image, not \[3\] from 0"),
        (np.full(10, -1), r"groups must be 10 numbers from 0, one an image, not \[10\] from -1"),
        (np.zeros(10), "groups of the set's images must be int64, not float64"),
        (np.full(10, 12), "the set's images are of groups up to 12, and c-digits has 10"),
    ):
        with pytest.raises(ValueError, match=why):
            fastdd.evaluate(synthetic, digits, training="lw", groups=groups, **FAST)
    with pytest.raises(ValueError, match="groups are of the images of a synthetic set; those of random are"):
        fastdd.evaluate("random", digits, ipc=1, training="lw", groups=np.zeros(10, np.int64), **FAST)


def test_what_a_recipe_needs_is_told(digits):
    synthetic = random_set(digits, 1)
    with pytest.raises(ValueError, match="unknown training 'x'; one of: erm"):
        fastdd.evaluate(synthetic, digits, training="x", **FAST)
    with pytest.raises(ValueError, match="training lff has no constant 'z'"):
        fastdd.evaluate(synthetic, digits, training="lff", constants={"z": 1}, **FAST)
    with pytest.raises(ValueError, match="training dfr fits on held-out images"):
        fastdd.evaluate(synthetic, digits, training="dfr", **FAST)
    with pytest.raises(ValueError, match="which CutMix does not mix"):
        Protocol(training="lff", cutmix=0.5)
