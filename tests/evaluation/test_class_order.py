"""Sets whose classes are in another order than the data set's, or are others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fastdd
from fastdd.data import Dataset, Split, SyntheticSet
from fastdd.evaluation import in_order_of

NAMES = ["ant", "bee", "cat"]


def bars():
    """Classes that any network tells apart: a white row each."""
    pixels, labels = np.zeros((30, 3, 8, 8), np.uint8), np.arange(30) % 3
    for image, label in enumerate(labels):
        pixels[image, :, 2 * label + 1] = 255
    split = Split(pixels, labels, np.zeros(30, np.int64))
    return Dataset("bars", split, split, tuple(NAMES), ("all",), (0.5,) * 3, (0.25,) * 3, {})


def of(names, soft=False):
    """An image a class, whose labels are in the order of ``names``."""
    data = bars()
    images = torch.from_numpy(data.train.images[:3]).float().div(255).sub(0.5).div(0.25)
    labels = torch.tensor([names.index(name) for name in NAMES])
    metadata = {"class_names": names, "mean": [0.5] * 3, "std": [0.25] * 3}
    metadata["run"] = {"arch": "ConvNet", "width": 8, "depth": 1, "dsa_strategy": "none"}
    rows = torch.nn.functional.one_hot(labels, 3).float() if soft else None
    return SyntheticSet(images, labels, metadata, soft_labels=rows)


def accuracy(made):
    result = fastdd.evaluate(made, bars(), nets=1, epochs=20, learning_rate=0.05, device="cpu")
    return result.summary()["accuracy"]["mean"]


@pytest.mark.parametrize("soft", [False, True])
def test_classes_are_matched_by_their_names(soft):
    assert accuracy(of(["cat", "ant", "bee"], soft)) == 100


def test_the_same_order_changes_nothing():
    made = of(NAMES)
    assert in_order_of(bars(), made) is made
    turned = in_order_of(bars(), of(["bee", "cat", "ant"]))
    assert turned.labels.tolist() == made.labels.tolist()
    assert turned.metadata["class_names"] == NAMES


def test_sets_that_name_no_classes_go_by_their_numbers():
    unnamed = replace(of(NAMES), metadata=of(NAMES).metadata | {"class_names": ["0", "1", "2"]})
    assert in_order_of(bars(), unnamed).labels.tolist() == [0, 1, 2]


def test_other_classes_are_refused():
    made = replace(of(NAMES), metadata=of(NAMES).metadata | {"class_names": ["ant", "bee", "dog"]})
    with pytest.raises(ValueError, match=r"'dog' is no class of the data set \(ant, bee, cat\)"):
        accuracy(made)
