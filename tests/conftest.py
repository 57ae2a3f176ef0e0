"""Fixtures and skips shared by all tests."""

import os
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(config, items):
    root = os.environ.get("FASTDD_TEST_DATA")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))
        if "realdata" in item.keywords and not (root and Path(root).is_dir()):
            item.add_marker(pytest.mark.skip(reason="FASTDD_TEST_DATA names no folder with the publishers' files"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with mnist/, fashion_mnist/, cifar10/, tiny_imagenet_20/, imagenette_small/."""
    return Path(os.environ["FASTDD_TEST_DATA"])
