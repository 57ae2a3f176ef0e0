"""``--config FILE``: a run's own configuration, experts' manifests, and files of options; the command line wins."""

import pytest
import yaml

from fastdd import report
from fastdd.data import SyntheticSet
from fastdd.experts.store import Experts

SMALL = {"dataset": "c-digits", "ipc": 1, "iterations": 2, "width": 8, "batch_real": 8}
WORDS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", value)]


def write(path, **values):
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def images(folder):
    return (folder / "synthetic.safetensors").read_bytes()


def test_a_runs_own_configuration_is_that_run_again(run, tmp_path):
    assert run("distill", *WORDS, "--debias", "fairdd", "--lr-img", 0.3, "--seed", 4, "--out", tmp_path / "a")[0] == 0
    code, _, errors = run("distill", "--config", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b")
    assert (code, errors) == (0, "")
    assert (tmp_path / "b" / "config.yaml").read_text() == (tmp_path / "a" / "config.yaml").read_text()
    assert images(tmp_path / "b") == images(tmp_path / "a")
    # Where the words stand does not matter.
    code, _, errors = run("distill", "--seed", 5, "--config", tmp_path / "a" / "config.yaml", "--out", tmp_path / "c")
    assert (code, errors) == (0, "")
    used = yaml.safe_load((tmp_path / "c" / "config.yaml").read_text())["run"]
    assert (used["seed"], used["lr_img"], used["debias"]) == (5, 0.3, "fairdd")


def test_a_configuration_of_other_data_is_told(run, tmp_path):
    assert run("distill", *WORDS, "--bias-ratio", 0.5, "--out", tmp_path / "a")[0] == 0
    config = ("--config", tmp_path / "a" / "config.yaml")
    code, _, errors = run("distill", *config, "--out", tmp_path / "b")
    assert code == 0
    assert "other data of the name c-digits" in errors
    assert errors.count("\n") == 1
    code, _, errors = run("distill", *config, "--bias-ratio", 0.5, "--out", tmp_path / "c")
    assert (code, errors) == (0, "")
    assert images(tmp_path / "c") == images(tmp_path / "a")


def test_any_option_of_the_command_may_be_in_the_file(run, tmp_path):
    more = {"method": "dsa", "outer_loop": 1, "dsa_strategy": "crop_flip", "lr_net": 1e-5, "memory": "low"}
    data = {"bias_ratio": 0.5, "data_option": {"seed": 3}, "device": "cpu"}
    how = {"out": str(tmp_path / "a"), "checkpoint_seconds": 0, "eval_every": 1, "eval_nets": 1, "eval_epochs": 1}
    file = write(tmp_path / "f.yaml", **SMALL, **more, **data, **how, epochs=None, evaluate=False)
    code, text, errors = run("distill", "--config", file, "--memory", "auto")
    assert (code, errors) == (0, "")
    assert "on the way" in text
    used = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["run"]
    settings = {**SMALL, **more, "memory": "auto"}
    assert {name: used[name] for name in settings} == settings
    parameters = SyntheticSet.load(tmp_path / "a" / "synthetic.safetensors").metadata["provenance"]["parameters"]
    assert {"bias_ratio": 0.5, "seed": 3}.items() <= parameters.items()


def test_the_command_lines_repeatable_options_replace_the_files(run, tmp_path):
    file = write(tmp_path / "f.yaml", **SMALL, data_option=["seed=3"], out=str(tmp_path / "a"))
    assert run("distill", "--config", file, "--data-option", "seed=4")[0] == 0
    made = SyntheticSet.load(tmp_path / "a" / "synthetic.safetensors")
    assert made.metadata["provenance"]["parameters"]["seed"] == 4


def test_experts_from_a_manifest_or_a_file(run, tmp_path):
    few = {"dataset": "c-digits", "num_experts": 1, "epochs": 1, "width": 4, "batch_train": 256, "eval_every": 0}
    file = write(tmp_path / "f.yaml", **few, zca=False, decay=True, debias="fairdd")
    code, _, errors = run("experts", "--config", file, "--out", "a")
    assert (code, errors) == (0, "")
    code, _, errors = run("experts", "--config", tmp_path / "a" / "manifest.json", "--out", "b")
    assert (code, errors) == (0, "")
    first, second = Experts.open("a"), Experts.open("b")
    assert first.manifest["config"] == second.manifest["config"]
    assert first.manifest["config"]["debias"] == "fairdd"
    assert first.manifest["config"]["decay"] is True
    assert first.digest() == second.digest()


def test_evaluate_and_estimate(run, tmp_path):
    file = write(tmp_path / "f.yaml", dataset="c-digits", nets=2, epochs=1, arch="ConvNetD1", ipc=1, json="e.json")
    code, _, errors = run("evaluate", "random", "--config", file, "--nets", 1)
    assert (code, errors) == (0, "")
    (row,) = report.read_json(tmp_path / "e.json")["rows"]
    assert (row["nets"], row["arch"]) == (1, "ConvNetD1")
    code, text, _ = run("estimate", "--config", write(tmp_path / "g.yaml", **SMALL))
    assert code == 0
    assert "fastdd distill, c-digits" in text


@pytest.mark.parametrize(
    ("command", "content", "words"),
    [
        (
            "distill",
            "ipc: 1\ncolour: red\nlrimg: 3\n",
            ["f.yaml", "colour", "lrimg (did you mean lr_img?)", "fastdd distill --help"],
        ),
        ("distill", "config: other.yaml\n", ["config"]),
        ("distill", "run: {method: dm}\ndata_digest: x\n", ["dataset"]),
        ("experts", "run: {method: dm}\ndata_digest: x\n", ["f.yaml is a run's configuration", "fastdd experts"]),
        ("distill", "config: {epochs: 3}\nparameters: []\n", ["f.yaml is the manifest of experts"]),
        ("evaluate", "run: {method: dm}\n", ["f.yaml is a run's configuration"]),
        ("distill", "ipc: ten\n", ["--ipc must be a whole number, not 'ten'"]),
        ("distill", "ipc: 1.5\n", ["--ipc must be a whole number, not '1.5'"]),
        ("distill", "dataset: c-digits\nipc: 0\n", ["IPC must be at least 1, not 0"]),
        ("distill", "dsa_strategy: no\n", ["dsa_strategy", "False", "quotes"]),
        ("distill", "lr_img: [1, 2]\n", ["lr_img", "[1, 2]"]),
        ("distill", "resume: 1\n", ["resume", "true or false"]),
        ("distill", "- ipc\n", ["no settings"]),
        ("distill", "a: b: c\n", ["f.yaml is no YAML"]),
    ],
)
def test_bad_files_in_one_line(run, tmp_path, command, content, words):
    (tmp_path / "f.yaml").write_text(content)
    code, text, errors = run(command, *(["random"] if command == "evaluate" else []), "--config", "f.yaml")
    assert (code, text) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert all(word in errors for word in words), errors


def test_no_such_file(run):
    assert run("distill", "--config", "no.yaml") == (2, "", "error: --config no.yaml: No such file or directory\n")
