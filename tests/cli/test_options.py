"""Options: one for every setting, none written by hand; help that is short to import and fits a terminal."""

import re
import subprocess
import sys

import pytest

from fastdd.cli import RUN_VALUES
from fastdd.cli.commands import COMMANDS, load
from fastdd.cli.options import first_line
from fastdd.core.settings import setting
from fastdd.debias import MODES
from fastdd.experts import ExpertSettings
from fastdd.methods import METHODS


def options_of(name):
    return {
        option: parameter for parameter in load(name).params for option in parameter.opts + parameter.secondary_opts
    }


def every_command():
    for name in COMMANDS:
        command = load(name)
        yield (name,)
        for part in getattr(command, "commands", {}):
            yield name, part


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_all_commands_is_that_of_each(name):
    assert COMMANDS[name][1] == first_line(load(name).help)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_what_names_no_command_waits_for_no_library(arguments):
    code = (
        "import sys; from fastdd.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print(*(name.partition('.')[0] for name in sys.modules), file=sys.stderr)\n"
        "print(*(name for name in sys.modules if name.startswith('fastdd.cli.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    packages, modules = (set(line.split()) for line in done.stderr.splitlines()[-2:])
    assert not packages & {"torch", "numpy", "pydantic", "yaml"}
    assert not modules & {f"fastdd.cli.{module}" for module, _ in COMMANDS.values()}


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_help_fits_80_columns_and_leaves_room_for_what_it_says(run, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = run(*words, "--help")
    assert code == 0
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for line in lines:
        if option := re.match(r"  --\S.*?  +(?=\S)", line):
            assert len(option[0]) <= 34, line


@pytest.mark.parametrize("method", METHODS)
def test_distill_has_every_setting_of_a_method_and_says_what_it_is(run, monkeypatch, method):
    monkeypatch.setenv("COLUMNS", "80")
    options, text = options_of("distill"), " ".join(run("distill", "--help")[1].split())
    for name, info in METHODS[method].Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        assert flag in options
        if name != "dataset":
            assert info.description[1:].split(", one of")[0] in text
            assert options[flag].default is None  # not given: a preset's, or the setting's own
    assert {"--momentum", "--batch-train", "--zca", "--no-zca"} <= options.keys()


def test_experts_have_every_setting_of_theirs():
    flags = {f"--{name.replace('_', '-')}" for name in ExpertSettings.model_fields}
    assert flags - {"--constants"} | {"--constant"} <= options_of("experts").keys()  # of which each is one


def test_a_method_is_an_option_group_by_being_in_the_registry(monkeypatch):
    class Settings(METHODS["dm"].Settings):
        sharpness: float = setting("how sharp the images shall be", 0.5, gt=0, le=1)

    class Sharp(METHODS["dm"]):
        pass

    Sharp.Settings = Settings
    monkeypatch.setitem(METHODS, "sharp", Sharp)
    monkeypatch.delitem(sys.modules, "fastdd.cli.distill")
    option = options_of("distill")["--sharpness"]
    assert (option.rich_help_panel, option.help) == ("sharp", "How sharp the images shall be.  [default: 0.5; 0<x<=1]")
    assert options_of("distill")["--batch-real"].rich_help_panel.endswith("sharp")


def test_options_of_run_that_have_values():
    with_values = [parameter for parameter in load("run").params if parameter.param_type_name == "option"]
    flags = [option for parameter in with_values if not parameter.is_flag for option in parameter.opts]
    assert sorted(flags) == sorted(RUN_VALUES)


def test_methods_and_modes_are_listed(run):
    text = run("methods")[1]
    assert all(name in text for name in METHODS)
    code, text, _ = run("methods", "mtt")
    assert code == 0
    assert all(name in text for name in METHODS["mtt"].Settings.model_fields if name not in ("method", "dataset"))
    code, text, error = run("methods", "mt")
    assert (code, text) == (2, "")
    assert error == f"error: unknown method 'mt'; one of: {', '.join(METHODS)}; did you mean mtt?\n"
    text = run("modes")[1]
    assert all(name in text for name in MODES)
