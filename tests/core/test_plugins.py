"""Files that register users' parts: loaded once, whole or not at all, and found again only where that is safe."""

import re

import pytest

from fastdd import models
from fastdd.core import plugins

pytestmark = pytest.mark.usefixtures("parts_apart")

NETWORK = """
import fastdd
from torch import nn

def {name}(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(48, num_classes))

fastdd.register_network("{name}", {name})
"""


@pytest.fixture
def plugin(tmp_path):
    """Writes a plugin; returns its path."""

    def write(text=NETWORK.format(name="mine"), name="part.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def new_process():
    plugins._forget(lambda _: True)
    plugins._loaded.clear()
    plugins._recorded.clear()


def test_a_file_is_run_once_and_again_when_it_has_changed(plugin, tmp_path):
    count = tmp_path / "count"
    text = NETWORK.format(name="mine") + f"open({str(count)!r}, 'a').write('x')\n"
    path = plugin(text)
    plugins.load(path)
    plugins.load(path)
    assert count.read_text() == "x"
    plugin(text.replace("mine", "other"))
    plugins.load(path)
    assert count.read_text() == "xx"
    assert "other" in models.names()
    assert "mine" not in models.names()


def test_a_file_can_import_what_lies_beside_it(plugin, tmp_path):
    (tmp_path / "beside_the_part.py").write_text("NAME = 'mine'\n")
    plugins.load(plugin("from beside_the_part import NAME\n" + NETWORK.format(name="mine")))
    assert "mine" in models.names()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NETWORK.format(name="mine") + "1 / 0\n", "line 9: ZeroDivisionError: division by zero"),
        ("x = (\n", r"line 1: SyntaxError: .*never closed"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        ("import fastdd\nfastdd.register_network('ConvNet', print)\n", "line 2: fastdd has a network 'ConvNet'"),
    ],
)
def test_a_file_that_fails_is_one_line_and_leaves_nothing(plugin, text, words):
    path = plugin(text)
    with pytest.raises(ValueError, match=rf"^the plugin {re.escape(str(path))}, {words}") as told:
        plugins.load(path)
    assert "\n" not in str(told.value)
    assert "mine" not in models.names()
    assert not plugins.registered()


def test_a_file_that_registers_nothing_is_told(plugin):
    with pytest.warns(RuntimeWarning, match="registers nothing"):
        plugins.load(plugin("pass\n"))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no plugin"):
        plugins.load(tmp_path / "no.py")


def test_two_files_do_not_take_one_name(plugin):
    plugins.load(plugin())
    with pytest.raises(ValueError, match=r"part\.py has registered a network 'mine': give yours another name"):
        plugins.load(plugin(NETWORK.format(name="mine") + "# two\n", "other.py"))


@pytest.mark.parametrize("name", ["", "a b", "-x", "../x", 3, None])
def test_names_are_words(name):
    with pytest.raises(ValueError, match="the name of a mode is a word"):
        plugins.check_name(plugins.MODE, name, [], print)


def test_a_recorded_file_is_loaded_again_if_it_is_the_one_that_was_named(plugin):
    path = plugin()
    plugins.load(path)
    records = plugins.used({"arch": "mine", "method": "dm"})
    assert records == [
        {"path": str(path), "digest": plugins._digest_at(str(path)), "kind": "plugin", "names": ["network mine"]}
    ]
    new_process()
    plugins.recall(records)
    assert "mine" in models.names()


def test_a_file_that_no_one_has_named_here_is_not_run(plugin, monkeypatch, tmp_path):
    path = plugin()
    plugins.load(path)
    records = plugins.used({"arch": "mine"})
    new_process()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another account"))
    plugins.recall(records)
    with pytest.raises(ValueError, match=rf"it is of the plugin {re.escape(str(path))}: give --plugin"):
        models.canonical_name("mine")


@pytest.mark.parametrize("change", ["edit", "remove"])
def test_a_file_that_has_changed_or_is_gone_is_told(plugin, change):
    path = plugin()
    plugins.load(path)
    records = plugins.used({"arch": "mine"})
    new_process()
    if change == "edit":
        plugin(path.read_text() + "# edited\n")
    else:
        path.unlink()
    plugins.recall(records)
    words = "which has changed since: give --plugin" if change == "edit" else "which is gone: give --plugin FILE"
    with pytest.raises(ValueError, match=words):
        models.canonical_name("mine")


@pytest.mark.parametrize(
    "records",
    [None, 3, "x", [3], [{}], [{"path": "p", "digest": "d", "kind": "plugin", "names": [3]}], {"path": "p"}],
)
def test_records_that_are_none_do_nothing(records):
    plugins.recall(records)
    plugins.check_same("run", records, {})


@pytest.mark.parametrize("path", ["/dev/zero", "/", "a\0b", "no such file"])
def test_records_of_what_is_no_file_are_not_read(path):
    plugins.recall([{"path": path, "digest": "d", "kind": "plugin", "names": ["network mine"]}])
    with pytest.raises(ValueError, match="which is gone"):
        models.canonical_name("mine")


def test_another_version_of_a_part_is_refused(plugin):
    path = plugin()
    plugins.load(path)
    records = plugins.used({"arch": "mine"})
    plugins.check_same("run", records, {"arch": "mine"})
    plugin(path.read_text() + "# edited\n")
    plugins.load(path)
    with pytest.raises(ValueError, match="run was begun with another version of network mine"):
        plugins.check_same("run", records, {"arch": "mine"})


def test_the_environment_names_files(plugin, monkeypatch):
    monkeypatch.setenv(plugins.ENVIRONMENT, str(plugin()))
    monkeypatch.setattr(plugins, "_named_loaded", False)
    plugins.load_named()
    assert "mine" in models.names()
    assert plugins.for_workers() == {plugins.ENVIRONMENT: str(next(iter(plugins._loaded)))}


def test_installed_ones_are_loaded_and_one_that_fails_is_left_out(monkeypatch, tmp_path):
    failing = "def fails():\n    raise OSError(5)\n"
    (tmp_path / "parts_of_a_package.py").write_text(NETWORK.format(name="packaged") + failing)
    info = tmp_path / "parts_of_a_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parts-of-a-package\nVersion: 1.0\n")
    points = "[fastdd.plugins]\nwell = parts_of_a_package\nbroken = parts_of_a_package:fails\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_named_loaded", False)
    with pytest.warns(RuntimeWarning, match="the installed plugin broken .* is left out: OSError: 5"):
        plugins.load_named()
    assert "packaged" in models.names()
    assert plugins.used({"arch": "packaged"})[0]["kind"] == "installed"
