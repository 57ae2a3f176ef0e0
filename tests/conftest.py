"""Fixtures and skips shared by all tests."""

import os
from pathlib import Path

import pytest
import torch


def pytest_configure(config):
    # Benchmarks are timed when that is asked for; as a part of the suite, each is called once.
    if config.pluginmanager.hasplugin("benchmark") and not (
        config.option.benchmark_only or config.option.benchmark_enable
    ):
        config.option.benchmark_disable = True


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
