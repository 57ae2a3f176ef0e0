"""Writers of files as other projects leave them."""

import pytest
import torch

from fastdd.data import load
from tests.exchange.samples import classes, images


@pytest.fixture(scope="module")
def c_digits():
    return load("c-digits")


@pytest.fixture
def result(tmp_path):
    """Writes a result of DC's: ``result(sets=..., accuracies=..., name=...)``; returns its path."""

    def write(sets=None, accuracies=None, name="res_DM_MNIST_ConvNet_2ipc.pt", **more):
        value = {"data": sets or [[images(), classes()]], "accs_all_exps": accuracies or {}}
        torch.save(value, tmp_path / name, **more)
        return tmp_path / name

    return write


@pytest.fixture
def trajectory_matching(tmp_path):
    """Writes files of MTT's into a folder: ``trajectory_matching(images_best=..., ...)``; returns the folder."""

    def write(**tensors):
        (tmp_path / "run").mkdir()
        for name, value in tensors.items():
            torch.save(value, tmp_path / "run" / f"{name}.pt")
        return tmp_path / "run"

    return write
