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


# Entries that tell the public checkouts apart.
_CHECKOUTS = {
    "dc": ("CL_DM.py", "main_DM.py", "main.py"),
    "fairdd": ("main_DM.py", "main_DC.py", "data_handler"),
    "mtt": ("buffer.py", "networks.py", "docs"),
    "tesla": ("buffer.py", "indices"),
    "idc": ("condense.py", "misc"),
    "dcbench": ("evaluator_main.py", "data_loader"),
}


@pytest.fixture
def public_checkout():
    """``public_checkout(family)``: the folder of published code, below $FASTDD_UPSTREAM or that itself; or a skip."""

    def find(family: str) -> Path:
        given = os.environ.get("FASTDD_UPSTREAM")
        if not given:
            pytest.skip("set FASTDD_UPSTREAM to a folder with public checkouts")
        for folder in (Path(given), *sorted(Path(given).iterdir())):
            if all((folder / entry).exists() for entry in _CHECKOUTS[family]):
                return folder
        pytest.skip(f"no checkout of {family} under {given}")

    return find


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with mnist/, fashion_mnist/, cifar10/, tiny_imagenet_20/, imagenette_small/."""
    return Path(os.environ["FASTDD_TEST_DATA"])
