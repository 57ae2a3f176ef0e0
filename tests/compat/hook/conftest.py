"""A made-up code base, importable under the hook."""

import importlib
import sys

import pytest
from field_code import NETWORKS, UTILS, path_of_a_script

from fastdd import compat
from fastdd.compat.hook import finder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of such modules, importable; afterwards nothing of it is left."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *path_of_a_script()])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "utils.py").write_text(UTILS)
    (tmp_path / "networks.py").write_text(NETWORKS)
    with compat.use_rng("fast"):
        yield tmp_path
    for name in ("utils", "networks", "more", "misc", "misc.nets", "root", "root.nets"):
        sys.modules.pop(name, None)
    assert not {"utils", "networks"} & (set(sys.modules) - before)


@pytest.fixture
def hooked(folder):
    """``hooked()``: the hook, installed, and the module utils."""

    def call(**options):
        made = finder.Hook(folder, **options)
        made.install()
        importlib.invalidate_caches()
        return made, importlib.import_module("utils")

    return call
