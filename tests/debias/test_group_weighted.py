"""Group weights: one segment a class, images inversely to the size of their group in the whole data set."""

import numpy as np
import pytest
import torch

import fastdd
from fastdd.data.initial import random_set
from fastdd.debias import Batch, mode
from fastdd.debias.loss_weights import loss_weights
from fastdd.methods import METHODS, Context, configure


@pytest.fixture(scope="module")
def digits():
    return fastdd.data.load("c-digits")


def test_weights_go_by_the_sizes_of_groups_in_the_data_set_not_in_the_batch():
    counts = torch.tensor([[8, 2], [1, 4]])
    batch = Batch(torch.arange(5), torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 0, 1]), 2, 2, counts)
    segments = mode("group-weighted").segments(batch)
    assert segments.offsets.tolist() == [0, 3, 5]
    # 1/8, 1/8, 1/2 and 1, 1/4, each over its sum.
    torch.testing.assert_close(segments.weights, torch.tensor([1 / 6, 1 / 6, 2 / 3, 4 / 5, 1 / 5]))


def test_it_is_kde_with_these_weights(digits):
    """Gradient of the first step, to the bit, of DM and DC."""
    train = digits.train
    counts = train.counts(digits.num_classes, digits.num_groups)
    weights = torch.as_tensor(1 / counts[train.labels, train.groups])

    def pull(method: str, debias: str) -> torch.Tensor:
        small = {"ipc": 2, "iterations": 1, "batch_real": 24, "width": 4, "depth": 1, "momentum": 0.0}
        config = configure(dataset="c-digits", method=method, debias=debias, **small)
        given = weights if debias == "kde" else None
        begun = METHODS[method](config, Context(digits, torch.device("cpu"), random_set(digits, 2).images, given))
        begun.match(0)
        return begun.momentum

    for method in ("dm", "dc"):
        assert torch.equal(pull(method, "group-weighted"), pull(method, "kde"))
        assert not torch.equal(pull(method, "group-weighted"), pull(method, "none"))


def test_experts_count_as_those_of_fairdd_do():
    labels, groups = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 1])
    ours, fair = (loss_weights(name, labels, groups) for name in ("group-weighted", "fairdd"))
    assert ours.tolist() == fair.tolist()
