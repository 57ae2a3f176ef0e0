"""Modules are recognised however a script finds them, and functions whatever they are called."""

import importlib
import multiprocessing.spawn
import pickle
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from field_code import NETWORKS, UTILS

import fastdd
from fastdd import compat
from fastdd.compat.hook import children, digests, finder, recognition, script
from fastdd.compat.hook.places import Places
from fastdd.compat.shared import randomness


def rows(hook):
    return {row["name"]: row for row in hook.report().rows}


def is_ours(function):
    return hasattr(function, "__wrapped__")


@pytest.fixture
def checkout(folder):
    """A checkout whose scripts are in a folder beside its modules: (checkout, folder of scripts)."""
    (folder / "scripts").mkdir()
    (folder / "root").mkdir()
    (folder / "root" / "__init__.py").write_text("")
    (folder / "root" / "nets.py").write_text(NETWORKS)
    (folder / "root" / "augmentations.py").write_text(UTILS.replace("from networks", "from .nets"))
    sys.path.remove(str(folder))
    return folder, folder / "scripts"


def test_what_a_script_puts_on_its_path_is_its_own(checkout, monkeypatch):
    _, scripts = checkout
    monkeypatch.chdir(scripts)
    hook = finder.Hook(scripts)
    hook.install()
    sys.path.append("../")
    importlib.invalidate_caches()
    utils = importlib.import_module("utils")
    assert is_ours(utils.DiffAugment)
    assert "fastdd" in utils.ConvNet.__mro__[1].__module__


def test_packages_with_relative_imports_are_its_own(checkout):
    root, scripts = checkout
    hook = finder.Hook(scripts)
    hook.install()
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    module = importlib.import_module("root.augmentations")
    del sys.modules["root.augmentations"]
    assert is_ours(module.DiffAugment)
    assert {row["module"] for row in hook.report().rows} == {"root.nets", "root.augmentations"}


def test_folders_that_were_there_at_the_start_count_if_the_script_lies_below(tmp_path, monkeypatch):
    for name in ("checkout/scripts", "library", "new", "site-packages"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'checkout'}:{tmp_path / 'library'}")
    added = [str(tmp_path / name) for name in ("checkout", "library", "site-packages")]
    monkeypatch.setattr(sys, "path", [*added, *sys.path])
    places = Places(tmp_path / "checkout" / "scripts")
    files = {name: str(tmp_path / name / "utils.py") for name in ("checkout", "library", "new", "site-packages")}
    assert [name for name, file in files.items() if places.have("utils", file)] == ["checkout"]
    sys.path.append(str(tmp_path / "new"))
    assert [name for name, file in files.items() if places.have("utils", file)] == ["checkout", "new"]
    assert not places.have("torch", torch.__file__)
    assert not places.have("json", importlib.import_module("json").__file__)
    assert not places.have("fastdd.compat", files["checkout"])


USES = """
early = epoch
assert "annotations" in dir()
net = ConvNet(3, 4, 8, 2, "relu", "instancenorm", "avgpooling", (16, 16))
print(__doc__, len(DiffAugment(torch.rand(2, 3, 8, 8), "flip", seed=1)))
1 / 0
"""


def test_what_a_script_itself_defines_is_replaced_before_it_is_called(folder, monkeypatch, capsys):
    start = '"""A script."""\nfrom __future__ import annotations\n'
    text = start + UTILS.replace("from networks import ConvNet", "") + NETWORKS + USES
    path = folder / "script.py"
    path.write_text(text)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    hook = finder.Hook(folder)
    assert script.run(str(path), [], hook) == 1
    main = sys.modules["__main__"]
    captured = capsys.readouterr()
    assert captured.out == "A script. 2\n"
    assert f"line {text.count(chr(10))}, in <module>\n    1 / 0" in captured.err
    assert is_ours(main.early)
    assert "fastdd" in type(main.net).__mro__[1].__module__
    assert rows(hook)["DiffAugment"]["agreed"] == 1
    assert rows(hook)["epoch"]["ours"] == "fastdd.compat.dc.epoch"


def test_a_script_of_other_things_runs_in_one_piece(folder):
    hook = finder.Hook(folder)
    assert hook.source_of_main(b"def helper():\n    pass\n\ndef epoch(x):\n    pass\n") is None
    assert hook.source_of_main(b"def f(:\n") is None


def test_copies_under_other_names_are_known_by_their_text(hooked, folder, monkeypatch):
    source = recognition.Source(UTILS)
    known = {source.body_digest("distance_wb"): "distance_wb"}
    monkeypatch.setattr(recognition, "BODIES", known)
    copied = UTILS[UTILS.index("def distance_wb") : UTILS.index("def match_loss")].replace(
        "distance_wb", "layer_distance"
    )
    documented = copied.replace("    if gwr", '    """Of one layer."""\n    # as published\n    if gwr', 1)
    changed = copied.replace("layer_distance", "other_distance").replace("0.000001", "0.1")
    (folder / "more.py").write_text(f"import torch\n\n{documented}\n{changed}")
    hook, _ = hooked()
    more = importlib.import_module("more")
    assert is_ours(more.layer_distance)
    assert not is_ours(more.other_distance)
    more.layer_distance(torch.rand(4, 3), torch.rand(4, 3))
    row = rows(hook)["layer_distance"]
    assert (row["ours"], row["agreed"]) == ("fastdd.compat.dc.distance_wb", 1)
    assert row["notes"][0] == "a copy of distance_wb"


def test_published_bodies_are_of_names_in_the_table():
    assert set(digests.BODIES.values()) == set(digests.DIGESTS)


def test_processes_started_anew_get_the_hook_first(folder, monkeypatch):
    monkeypatch.setattr(multiprocessing.spawn, "get_preparation_data", multiprocessing.spawn.get_preparation_data)
    children.follow(children.Settings(str(folder), replacing=False))
    children.follow(children.Settings(str(folder), verify=True))
    with compat.use_rng("legacy"):
        first, second = (multiprocessing.spawn.get_preparation_data("worker")["fastdd"] for _ in range(2))
    install, (settings,) = first.__reduce__()
    assert install is children.install
    assert (settings.folder, settings.verify, settings.replacing, settings.mode) == (str(folder), True, True, "legacy")
    assert settings.seed != second.__reduce__()[1][0].seed
    state = dict(randomness._state)
    try:
        pickle.loads(pickle.dumps(first))
        importlib.invalidate_caches()
        assert is_ours(importlib.import_module("utils").DiffAugment)
        assert randomness.mode() == "legacy"
    finally:
        randomness._state.update(state)


def test_a_process_started_anew_replaces_what_the_script_itself_defines(folder, monkeypatch):
    text = UTILS.replace("from networks import ConvNet", "from networks import ConvNet\nfrom pathlib import Path")
    (folder / "script.py").write_text(text + "early = epoch\nif __name__ == '__main__':\n    1 / 0\n")
    for name in ("get_preparation_data", "_fixup_main_from_path", "_fixup_main_from_name"):
        monkeypatch.setattr(multiprocessing.spawn, name, getattr(multiprocessing.spawn, name))
    monkeypatch.setattr(multiprocessing.spawn, "old_main_modules", [])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setitem(sys.modules, "__mp_main__", None)
    state = dict(randomness._state)
    try:
        children.install(children.Settings(str(folder)))
        importlib.invalidate_caches()
        multiprocessing.spawn.prepare({"init_main_from_path": str(folder / "script.py")})
        main = sys.modules["__main__"]
        assert (main.__name__, main) == ("__mp_main__", sys.modules["__mp_main__"])
        assert is_ours(main.early)
        assert main.early.__wrapped__.__globals__["DiffAugment"] is main.DiffAugment
        assert is_ours(main.DiffAugment)
        assert "fastdd" in main.ConvNet.__mro__[1].__module__
        multiprocessing.spawn.prepare({"init_main_from_path": str(folder / "script.py")})
        assert sys.modules["__main__"] is main  # once
    finally:
        randomness._state.update(state)


def test_notebooks(folder, monkeypatch):
    main = ModuleType("__main__")
    cells, events = [], {}
    main.In = cells
    shell = SimpleNamespace(user_ns=vars(main), events=SimpleNamespace(register=events.__setitem__))
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.chdir(folder)

    def run(cell):
        cells.append(cell)
        exec(cell, vars(main))
        events["post_run_cell"](None)

    fastdd.load_ipython_extension(shell)
    hook = main.fastdd_hook
    cells.append("%load_ext fastdd")
    run("from utils import match_loss\nfrom networks import ConvNet")
    assert is_ours(main.match_loss)
    for part in UTILS.replace("from networks import ConvNet", "").split("\ndef ")[1:]:
        run(("import torch\nfrom fastdd.compat import dc\n" if part.startswith("DiffAugment") else "") + f"def {part}")
    assert is_ours(main.DiffAugment)
    assert is_ours(main.epoch)
    assert rows(hook)["epoch"]["module"] == "__main__"
    assert compat.install() is hook
