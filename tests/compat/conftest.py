"""Modules of public checkouts to compare with."""

from pathlib import Path

import pytest

from fastdd.compat.hook import checkout

MODULES = {
    "dc": ("utils", "networks"),
    "fairdd": ("utils", "networks"),
    "mtt": ("utils", "networks", "reparam_module"),
    "idc": ("misc.augment", "models.convnet", "models.resnet", "models.resnet_ap", "data"),
    "dcbench": tuple(f"data_loader.{name}_data_loader" for name in ("dc", "dsa", "dm", "tm")),
}


@pytest.fixture
def upstream(public_checkout):
    """``upstream(family)``: the checkout's folder and its modules by name; skips where there is none."""

    def find(family: str) -> tuple[Path, dict]:
        folder, names = public_checkout(family), MODULES[family]
        return folder, dict(zip(names, checkout.modules(folder, names), strict=True))

    return find
