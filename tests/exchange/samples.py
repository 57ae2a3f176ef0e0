"""Sets and what tests of all formats say of them."""

from contextlib import contextmanager

import pytest
import torch

import fastdd
from fastdd.data import SyntheticSet

MNIST = {"mean": [0.1307], "std": [0.3081]}


def images(count=20, shape=(1, 28, 28), seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def classes(count=20, num_classes=10):
    return torch.arange(num_classes).repeat_interleave(count // num_classes)


def made(channels=3, size=8, labels=(0, 0, 1, 1), **more):
    metadata = {
        "class_names": ["cat", "dog"],
        "mean": [0.4914, 0.4822, 0.4465][:channels],
        "std": [0.2023, 0.1994, 0.2010][:channels],
        "method": "dm",
        "debias": "fairdd",
        "dataset": "cifar10",
        "seed": 3,
        "run": {"arch": "ConvNetD2", "width": 8, "depth": None, "dsa_strategy": "flip", "iterations": 5},
    }
    metadata |= more.pop("metadata", {})
    x = images(len(labels), (channels, size, size))
    return SyntheticSet(x, torch.tensor(labels), metadata, **more)


def read_mnist(path, **options):
    return fastdd.import_synthetic(path, dataset="mnist", **options)


@contextmanager
def refused(kind, *words):
    """An error of a kind, in one line that has the words."""
    with pytest.raises(kind) as error:
        yield
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def same(one, two, *, learning_rate=True, soft_labels=True):
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)
    for field in ("mean", "std", "class_names", "method"):
        assert one.metadata[field] == two.metadata[field]
    if learning_rate:
        assert one.learning_rate == two.learning_rate
    if soft_labels:
        assert (one.soft_labels is None) == (two.soft_labels is None)
        assert one.soft_labels is None or torch.equal(one.soft_labels, two.soft_labels)
