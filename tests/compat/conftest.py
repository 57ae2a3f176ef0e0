"""Public checkouts to compare with, where $FASTDD_UPSTREAM names a folder of them (or one of them)."""

import os
from pathlib import Path

import pytest

from fastdd.compat import checkout

# A file that tells each family, and the modules that are compared.
FAMILIES = {
    "dc": (("main_DM.py", "main.py"), ("utils", "networks")),
    "fairdd": (("main_DM.py", "main_DC.py"), ("utils", "networks")),
    "mtt": (("buffer.py", "networks.py", "docs"), ("utils", "networks", "reparam_module")),
    "idc": (("condense.py", "misc"), ("misc.augment", "models.convnet", "models.resnet", "models.resnet_ap", "data")),
    "dcbench": (
        ("evaluator_main.py", "data_loader"),
        tuple(f"data_loader.{name}_data_loader" for name in ("dc", "dsa", "dm", "tm")),
    ),
}


@pytest.fixture
def upstream():
    """``upstream(family)``: the checkout's folder and its modules by name; skips where there is none."""

    def find(family: str) -> tuple[Path, dict]:
        given = os.environ.get("FASTDD_UPSTREAM")
        if not given:
            pytest.skip("set FASTDD_UPSTREAM to a folder with public checkouts")
        marks, names = FAMILIES[family]
        for folder in (Path(given), *sorted(path for path in Path(given).iterdir() if path.is_dir())):
            if all((folder / mark).exists() for mark in marks):
                return folder, dict(zip(names, checkout.modules(folder, names), strict=True))
        pytest.skip(f"no checkout of {family} under {given}")

    return find
