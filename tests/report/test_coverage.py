"""What sets cover of a class, where it is known: sets that are training images themselves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import fastdd
from fastdd.data import DeviceImages
from fastdd.data.initial import random_set
from fastdd.report.coverage import class_coverage, class_number, draw_coverage
from fastdd.report.page import TextTable, page


@pytest.fixture(scope="module")
def data():
    return fastdd.data.load("c-digits")


def of_rows(data, rows):
    """The set of these training images."""
    some = random_set(replace(data, train=data.train.take(rows)), 1)
    chosen = torch.from_numpy(rows)
    images = DeviceImages.of(data.train.images, data.mean, data.std, "cpu").read(chosen)
    return replace(some, images=images, labels=torch.from_numpy(data.train.labels[rows]))


@pytest.fixture(scope="module")
def sets(data):
    """One of the largest groups alone, one of an image of every group; of class 3 and of a few of the others."""
    train = data.train
    largest = [np.flatnonzero((train.labels == y) & (train.groups == y))[:10] for y in range(10)]
    own = [np.flatnonzero((train.labels == 3) & (train.groups == g))[:1] for g in range(10)]
    alone = np.concatenate(largest)
    every = np.concatenate([*largest[:3], *own, *largest[4:]])
    return [("alone", of_rows(data, alone), None), ("every", of_rows(data, every), None)]


def test_a_set_covers_the_groups_that_it_has_images_of(data, sets):
    found = class_coverage(sets, data, "3", seed=1)
    counts = data.train.counts(10, 10)[3]
    alone, every = found.panels
    assert (alone.aligned, every.aligned) == (3, 3)
    assert alone.shares[3] >= 10 / counts[3]
    for group in np.flatnonzero(counts == 1):
        assert every.shares[int(group)] == 1
    others = [group for group in range(10) if group != 3]
    assert sum(alone.shares[group] for group in others) == 0
    assert all(every.shares[group] >= 1 / counts[group] for group in others)
    assert every.caption.startswith(f"covers {100 * every.shares[3]:.0f} % of the largest group, ")
    # Points of one network: the same plane, and a synthetic image lies on the real one that it is.
    assert np.array_equal(alone.real, every.real)
    assert (len(alone.real), len(alone.made), len(every.made)) == (counts.clip(max=200).sum(), 10, 10)
    apart = np.linalg.norm(every.made[:, None] - every.real[None], axis=2).min(1)
    assert apart.max() <= 1e-3 * np.ptp(every.real)


def test_it_is_on_the_page_and_in_a_file(data, sets, tmp_path):
    found = class_coverage(sets[1:], data, "3")
    assert [name for name, _ in found.colours.values()] == list(data.group_names)
    draw_coverage(found, tmp_path / "coverage.png")
    with Image.open(tmp_path / "coverage.png") as picture:
        assert len(np.unique(np.asarray(picture))) > 50
    text = page([], data, table=TextTable("a table", "", ["name"], []), covered=found)
    assert "What is covered of class 3" in text
    assert f"every: {found.panels[0].caption}" in text


def test_classes_go_by_name_then_by_number(data):
    assert class_number(data, "7") == 7
    named = replace(data, class_names=("nought", *data.class_names[1:]))
    assert (class_number(named, "nought"), class_number(named, "0")) == (0, 0)
    with pytest.raises(ValueError, match="c-digits has no class 'ten' to highlight; it has 0, 1, 2"):
        class_number(data, "ten")
