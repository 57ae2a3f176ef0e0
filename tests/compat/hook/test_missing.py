"""Packages that are missing are told with what is used of them; a stand-in only logs nothing."""

import importlib
import sys

import pytest

from fastdd.compat.hook import missing, substitutes, wandb_stand_in

SCRIPT = """
import sys
sys.path.append("library")
import os, json, torch
import no_such_log as log
import no_such_images.filters as filters
from no_such_package.parts import First, second
from tools import helper
from deep import thing
try:
    import no_such_extra
except ImportError:
    no_such_extra = None
def late():
    import no_such_late
log.init(project="x")
log.config.update({})
log.run.name
filters.blur(1)
"""


@pytest.fixture
def code_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("tools", "library"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("")
    (tmp_path / "tools" / "helper.py").write_text("from . import inner\n")
    (tmp_path / "tools" / "inner.py").write_text("import no_such_log\nno_such_log.Image(1)\n")
    (tmp_path / "library" / "deep.py").write_text("import no_such_depth\n")
    return tmp_path


def test_what_is_missing_and_what_is_used_of_it(code_base):
    (code_base / "script.py").write_text(SCRIPT)
    found = missing.find("script.py")
    assert [str(package) for package in found] == [
        "no_such_depth (deep.py)",
        "no_such_images (filters.blur; script.py)",
        "no_such_log (Image, config.update, init, run.name; inner.py, script.py)",
        "no_such_package (parts.First, parts.second; script.py)",
    ]
    assert missing.notice(found[:1]) == "not installed, and imported by the script: no_such_depth (deep.py)"


def test_modules_of_the_code_base_are_not_missing_wherever_it_looks_for_them(code_base):
    (code_base / "scripts").mkdir()
    (code_base / "scripts" / "run.py").write_text("import os, sys\nsys.path.append(os.pardir)\nimport tools.inner\n")
    assert missing.find("scripts/run.py") == []
    (code_base / "broken.py").write_text("def f(:\n")
    assert missing.find("broken.py") == []


def test_a_stand_in_keeps_settings_and_nothing_else(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setitem(sys.modules, "wandb", None)
    del sys.modules["wandb"]
    substitutes.install(wandb=True)
    wandb = importlib.import_module("wandb")
    assert wandb is wandb_stand_in
    assert "wandb" in substitutes.in_use()
    with wandb.init(project="x", config={"lr": 0.1}) as run:
        run.log({"loss": 1.0})
        wandb.log({"images": wandb.Image(None)}, step=3)
    assert (wandb.config.lr, wandb.config["lr"], wandb.config._items) == (0.1, 0.1, {"lr": 0.1})
    wandb.config.update(type("Args", (), {})())
    assert not hasattr(wandb.config, "momentum")
    assert not hasattr(wandb, "Api")
    assert set(wandb_stand_in.LOGS) <= set(vars(wandb))
    wandb.config.clear()
