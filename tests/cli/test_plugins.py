"""``--plugin``: the examples, in commands that make runs, and in those that find a run's parts again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from forked import Ranks

import fastdd.cli
from fastdd.cli.commands import COMMANDS
from fastdd.cli.plugins import before_command, take_plugins
from fastdd.core import plugins

pytestmark = pytest.mark.usefixtures("parts_apart")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NETWORK, METHOD, MODE, DATASET = (
    EXAMPLES / f"{name}.py" for name in ("small_resnet", "softened_matching", "root_groups", "stripes")
)


@pytest.fixture(autouse=True)
def commands_anew():
    """Options are made as a command's module is imported, in a process of its own after its plugins are loaded."""
    names = [f"fastdd.cli.{module}" for module, _ in COMMANDS.values()]
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    yield
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(before)
    for name, module in before.items():
        setattr(fastdd.cli, name.rpartition(".")[2], module)


def new_process():
    plugins._forget(lambda _: True)
    plugins._loaded.clear()
    plugins._recorded.clear()


@pytest.mark.parametrize(
    ("words", "files", "others"),
    [
        (["distill", "--plugin", "a.py", "--ipc", "1"], ["a.py"], ["distill", "--ipc", "1"]),
        (["--plugin=a.py", "--plugin", "b.py", "methods"], ["a.py", "b.py"], ["methods"]),
        (["methods"], [], ["methods"]),
    ],
)
def test_files_stand_anywhere(words, files, others):
    assert take_plugins(words) == (files, others)


def test_what_stands_before_a_command_is_counted():
    assert before_command(["--plugin", "a", "--plugin=b", "run", "--plugin", "c"]) == 3
    assert before_command(["--plugin"]) == 1


def test_a_run_of_four_parts_is_found_again(run, monkeypatch):
    monkeypatch.setenv(plugins.ENVIRONMENT, f"{METHOD}:{MODE}")
    monkeypatch.setattr(plugins, "_named_loaded", False)
    words = ["--dataset", "stripes", "--data-option", "images=12", "--method", "softened-dm", "--power", 0.7]
    words += ["--debias", "root-groups", "--arch", "small-resnet", "--ipc", 1, "--batch-real", 8, "--out", "run"]
    code, _, errors = run("--plugin", NETWORK, "distill", f"--plugin={DATASET}", *words, "--iterations", 2)
    assert (code, errors) == (0, "")
    written = yaml.safe_load(Path("run/config.yaml").read_text())
    assert written["run"]["power"] == 0.7
    assert [record["names"] for record in written["plugins"]] == [
        ["method softened-dm"],
        ["mode root-groups"],
        ["network small-resnet"],
        ["data set stripes"],
    ]
    monkeypatch.delenv(plugins.ENVIRONMENT)
    for command in (
        ["distill", *words, "--iterations", 3, "--resume"],
        ["distill", "--config", "run/config.yaml", "--dataset", "stripes", "--out", "again"],
        ["evaluate", "run/synthetic.safetensors", "--nets", 1, "--epochs", 1],
        ["report", "run", "--dataset", "stripes"],
    ):
        new_process()
        code, _, errors = run(*command)
        assert code == 0, errors


def test_what_is_to_be_given_is_said(run, tmp_path):
    own = tmp_path / "net.py"
    own.write_text(NETWORK.read_text())
    words = ["distill", "--plugin", DATASET, "--dataset", "stripes", "--data-option", "images=12"]
    words += ["--arch", "small-resnet", "--ipc", 1, "--iterations", 2, "--out", "r"]
    evaluate = ["evaluate", "r", "--nets", 1, "--epochs", 1]
    assert run(*words, "--plugin", own)[0] == 0
    new_process()
    own.write_text(NETWORK.read_text() + "# edited\n")
    code, _, errors = run(*evaluate)
    assert (code, errors.count("\n")) == (2, 1)
    assert f"it is of the plugin {own}, which has changed since: give --plugin {own}" in errors
    code, _, errors = run(*words, "--plugin", own, "--resume")
    assert code == 2
    assert "r was begun with another version of network small-resnet" in errors
    assert run(*evaluate, "--plugin", own)[0] == 0


def test_lists_and_help_have_them(run):
    parts = ["--plugin", METHOD, "--plugin", MODE, "--plugin", DATASET]
    for words, text in (
        (["methods"], "softened-dm"),
        (["methods", "softened-dm"], "power"),
        (["modes"], "root-groups"),
        (["data", "list"], "stripes"),
        (["info"], "root-groups"),
        (["distill", "--help"], "--power"),
    ):
        code, out, errors = run(*words, *parts)
        assert (code, errors) == (0, "")
        assert text in " ".join(out.split()).replace("- ", "-"), words
    code, out, _ = run("experts", "--help")
    assert "--plugin FILE" in out
    assert "--plugin FILE" in run("--help")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methods", "--plugin"], "--plugin is followed by a Python file"),
        (["methods", "--plugin", "no.py"], "there is no plugin no.py"),
        (["--plugin", "bad.py", "methods"], "bad.py, line 2: KeyError: 'x'"),
        (["--plugin", "bad.txt", "methods"], "bad.txt is no Python file: its name must end in .py"),
    ],
)
def test_mistakes_are_one_line(run, words, message):
    for name in ("bad.py", "bad.txt"):
        Path(name).write_text("\n{}['x']\n")
    code, _, errors = run(*words)
    assert (code, errors.count("\n")) == (2, 1)
    assert message in errors


def test_help_and_version_load_nothing(run):
    Path("bad.py").write_text("1 / 0\n")
    assert run("--plugin", "bad.py", "--version")[0] == 0


RANK = """
import os, sys
os.chdir(sys.argv[1])
os.environ["XDG_STATE_HOME"] = sys.argv[2]
for name in [name for name in sys.modules if name.startswith("fastdd.cli.")]:
    del sys.modules[name]
from fastdd.cli import main
main(sys.argv[3:])
"""


@pytest.mark.full
def test_workers_and_ranks_have_them(tmp_path):
    words = ["--plugin", DATASET, "--plugin", NETWORK, "--dataset", "stripes", "--arch", "small-resnet"]
    experts = ["experts", *words, "--num-experts", 2, "--epochs", 1, "--processes", 2, "--out", "ex"]
    ranks = ["distill", *words, "--ipc", 1, "--iterations", 2, "--out", "run"]

    def command(*words):
        command = [sys.executable, "-m", "fastdd", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    command(*experts)
    job = Ranks(RANK, tmp_path, os.environ["XDG_STATE_HOME"], *ranks)
    for rank in job.scripts:
        rank.succeed()
    command(*ranks, "--resume")
