"""Which tests are collected here, and fixtures shared by all."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from fastdd.core import malloc


def pytest_configure(config):
    # As the commands do: page faults of large temporaries, mapped and unmapped each time, were a seventh of the suite.
    malloc.keep_freed_memory()
    # Benchmarks are timed when that is asked for; as a part of the suite, each is called once.
    if config.pluginmanager.hasplugin("benchmark") and not (
        config.option.benchmark_only or config.option.benchmark_enable
    ):
        config.option.benchmark_disable = True


def _named_folder(variable: str) -> bool:
    """Whether an environment variable names a folder."""
    return bool(os.environ.get(variable)) and Path(os.environ[variable]).is_dir()


# Marker -> whether what its tests need is here, and what to say where it is not.
_NEEDS = {
    "gpu": (torch.cuda.is_available, "there is no NVIDIA GPU"),
    "realdata": (lambda: _named_folder("FASTDD_TEST_DATA"), "FASTDD_TEST_DATA names no folder"),
    "upstream": (lambda: _named_folder("FASTDD_UPSTREAM"), "FASTDD_UPSTREAM names no folder"),
}
_left_out = Counter()


def pytest_itemcollected(item):
    if "public_checkout" in getattr(item, "fixturenames", ()):
        item.add_marker("upstream")


def pytest_collection_modifyitems(config, items):
    """Leave out what needs something that is not here: a skip then says something, and is worth a look."""
    absent = [marker for marker, (here, _) in _NEEDS.items() if not here()]
    left_out = []
    for item in items:
        missing = next((marker for marker in absent if item.get_closest_marker(marker)), None)
        if missing:
            left_out.append(item)
            _left_out[missing] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["left_out"] = dict(_left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    # Every process has collected the same tests.
    for marker, number in getattr(node, "workeroutput", {}).get("left_out", {}).items():
        _left_out[marker] = number


def pytest_terminal_summary(terminalreporter):
    for marker, number in _left_out.items():
        terminalreporter.write_line(f"left out: {number} tests marked {marker} ({_NEEDS[marker][1]})")


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
