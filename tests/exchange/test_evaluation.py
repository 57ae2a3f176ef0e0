"""Sets of others are evaluated as they were made."""

from dataclasses import replace

import pytest
import torch

import fastdd
from tests.exchange.samples import made, refused


def test_test_images_are_normalised_as_the_set_is(result, c_digits):
    """A set in other units than the data set's scores as it would in those of the data set."""
    start = fastdd.data.load("c-digits")
    pixels = torch.from_numpy(start.train.images[:40]) / 255
    labels = torch.from_numpy(start.train.labels[:40])
    settings = {"nets": 1, "epochs": 3, "width": 8, "depth": 2, "dsa_strategy": "none", "device": "cpu"}
    other = replace(start, mean=(0.2,) * 3, std=(0.9,) * 3)
    path = result([[(pixels - 0.2) / 0.9, labels]])
    read = fastdd.import_synthetic(path, dataset="c-digits", mean=[0.2] * 3, std=[0.9] * 3)
    counts = [fastdd.evaluate(read, data, **settings).counts[0].right for data in (start, other)]
    assert torch.equal(*counts)


@pytest.mark.parametrize("write", ["dc", "mtt", "idc", "dcbench", "npz"])
def test_files_of_others_are_not_evaluated_unread(tmp_path, write, c_digits):
    path = tmp_path / ("a.npz" if write == "npz" else "a")
    fastdd.export_synthetic(made(), path, to=write)
    with refused(ValueError, f"fastdd import {path} --out FILE.safetensors"):
        fastdd.evaluate(path, c_digits)
