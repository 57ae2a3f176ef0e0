"""``fastdd runs``, ``--dry-run``, JSON of what there is, and commands that refuse without leaving anything."""

import json
import os
from pathlib import Path

import pytest
import yaml

from fastdd import api, report
from fastdd.core import files
from fastdd.methods import METHODS
from fastdd.report import overview
from fastdd.session import Estimate

SMALL = ("--dataset", "c-digits", "--ipc", 1, "--width", 4, "--batch-real", 8)


@pytest.fixture
def folder(run, tmp_path):
    """Two runs: one finished and evaluated, one that did 1 of 3 iterations."""
    assert (
        run("distill", *SMALL, "--iterations", 1, "--out", "runs/a", "--evaluate", "--nets", 1, "--epochs", 1)[0] == 0
    )
    assert run("distill", *SMALL, "--iterations", 1, "--lr-img", 0.5, "--debias", "fairdd", "--out", "runs/b")[0] == 0
    config = yaml.safe_load((tmp_path / "runs/b/config.yaml").read_text())
    config["run"]["iterations"] = 3
    (tmp_path / "runs/b/config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "runs"


def test_runs_are_listed_and_compared(run, folder, tmp_path):
    code, text, _ = run("runs", "--json", "r.json")
    assert code == 0
    content = json.loads((tmp_path / "r.json").read_text())
    first, second = content["rows"]
    assert (first["run"], first["state"], first["done"], first["total"]) == ("runs/a", "finished", 1, 1)
    assert first["accuracy"] == report.read_results(folder / "a" / "result.json")["rows"][0]["accuracy"]
    assert (second["state"], second["done"], second["total"], second["accuracy"]) == ("interrupted", 1, 3, None)
    log = [json.loads(line) for line in (folder / "b" / "metrics.jsonl").read_text().splitlines()]
    assert second["metrics"] == log[-1]
    assert set(content["meta"]["differing"]) == {"debias", "iterations", "lr_img"}
    assert "settings that differ: debias, iterations, lr_img" in text
    for cell in ("interrupted", "dm+fairdd", "1/3", f"{log[-1]['loss']:.4g}"):
        assert cell in text
    (tmp_path / "no runs").mkdir()
    assert "warning: there are no runs in no runs\n" in run("runs", "runs/a", "no runs")[1]
    text = run("runs", "runs/a", "runs/b")[1]
    assert [line.split() for line in text.splitlines()[-3:]] == [
        ["debias", "none", "fairdd"],
        ["iterations", "1", "3"],
        ["lr_img", "1.0", "0.5"],
    ]


def test_a_held_run_is_running_and_asking_holds_nothing(folder):
    lock = files.hold(folder / "a")
    assert overview.run_state(folder / "a").state == "running"
    lock.close()
    assert overview.run_state(folder / "a").state == "finished"
    files.hold(folder / "a").close()


def test_results_of_another_set_do_not_count(folder):
    path = folder / "a" / "result.json"
    content = json.loads(path.read_text())
    content["rows"][0]["set_digest"] = "of another"
    path.write_text(json.dumps(content))
    assert overview.run_state(folder / "a").row is None


@pytest.mark.parametrize(
    ("name", "text"), [("config.yaml", "run: [1]"), ("metrics.jsonl", '{"loss": 1}\n'), ("result.json", "{}")]
)
def test_a_damaged_run_is_told_beside_the_others(run, folder, name, text):
    (folder / "a" / name).write_text(text)
    code, out, _ = run("runs")
    assert code == 0
    assert "damaged" in out
    assert "interrupted" in out
    assert "warning: runs/a" in out


def test_no_runs_are_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for words, said in ((("runs",), "no such folder"), (("runs", "empty"), "there are no runs in empty")):
        code, _, error = run(*words)
        assert (code, error.count("\n")) == (2, 1)
        assert said in error


def tree(folder):
    return sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in [".", *names])


def test_a_dry_run_is_checks_plan_and_estimate(run, tmp_path, monkeypatch):
    taken = Estimate({"distillation": 12.0}, 2**30, None, 2**20, [])
    monkeypatch.setattr(api.Distillation, "estimate", lambda *_, **__: taken)
    code, text, error = run("distill", *SMALL, "--iterations", 2, "--seeds", 2, "--dry-run", "--json", "-")
    content = json.loads(text)["meta"]
    assert code == 0
    assert content["estimate"]["total"] == 24
    assert content["plan"]["out"] == [f"runs/dm-none-c-digits-1-seeds/seed-{seed}" for seed in (0, 1)]
    assert "lr_img" in error
    assert "nothing was written" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.full
@pytest.mark.parametrize(
    "words",
    [
        ("distill", *SMALL, "--iterations", 2),
        ("distill", *SMALL, "--iterations", 2, "--seeds", "2", "--evaluate", "--nets", 1, "--epochs", 1),
        ("evaluate", "random", "--dataset", "c-digits", "--ipc", 1, "--nets", 1, "--epochs", 1, "--keep-nets", "nets"),
        ("experts", "--dataset", "c-digits", "--num-experts", 2, "--epochs", 1, "--width", 4),
        ("train", "--dataset", "c-digits", "--epochs", 1, "--width", 4, "--out", "net"),
    ],
    ids=lambda words: " ".join(map(str, words[:1])),
)
def test_a_dry_run_tells_the_plan_and_writes_nothing(run, tmp_path, words):
    before = tree(tmp_path)
    code, text, error = run(*words, "--dry-run", "--json", "-")
    assert code == 0, error
    assert "nothing was written" in error
    assert "total" in error
    content = json.loads(text)
    assert content["meta"]["estimate"]["total"] > 0
    assert content["meta"]["plan"]
    assert tree(tmp_path) == before


def test_a_dry_run_checks_what_the_run_would(run, folder):
    for words, said in (
        (("distill", *SMALL, "--iterations", 2, "--out", "runs/a", "--dry-run"), "already holds a run"),
        (("distill", *SMALL, "--metric", "l3", "--dry-run"), "metric must be one of"),
        (("distill", *SMALL, "--out", "runs/a/config.yaml/x", "--dry-run"), "is a file"),
    ):
        code, _, error = run(*words)
        assert code in (1, 2)
        assert error.count("\n") == 1
        assert said in error


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "NET", "--dataset", "mnist", "--data-root", "nowhere", "--out", "x/y"),
        ("distill", "--dataset", "mnist", "--out", "x/y"),
        ("distill", "--dataset", "c-digits", "--ipc", 0, "--out", "x/y"),
        ("distill", "--dataset", "c-digits", "--ipc", 0, "--seeds", 2, "--out", "x/y"),
        ("experts", "--dataset", "c-digits", "--epochs", 0, "--out", "x/y"),
        ("train", "--dataset", "c-digits", "--epochs", 0, "--out", "x/y"),
        ("evaluate", "random", "--dataset", "c-digits", "--ipc", 1, "--arch", "ConvNetD7", "--keep-nets", "x/y"),
        ("weights", "--dataset", "c-digits", "--variance", 0),
        ("weights", "--dataset", "mnist"),
        ("study", "kde", "--dataset", "mnist", "--out", "x/y"),
        ("study", "severity", "--dataset", "c-digits", "--out", "x/y"),
        ("data", "build", "mnist", "--out", "x/y"),
        ("reproduce", "fairdd", "table1", "--out", "x/y"),
        ("report", "nothing", "--out", "x/y.html"),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_what_is_refused_leaves_nothing(run, tmp_path, words):
    if "NET" in words:
        assert run("train", "--dataset", "c-digits", "--epochs", 1, "--width", 4, "--out", "NET")[0] == 0
    before = tree(tmp_path)
    code, _, error = run(*words)
    assert code in (1, 2)
    assert error.count("\n") == 1, error
    assert tree(tmp_path) == before


def test_what_there_is_as_json(run):
    for words, name in (
        (["methods"], "dm"),
        (["modes"], "fairdd"),
        (["recipes"], "groupdro"),
        (["data", "list"], "c-digits"),
    ):
        code, text, _ = run(*words, "--json", "-")
        content = json.loads(text)
        assert (code, content["schema"]) == (0, 1)
        assert name in [row["name"] for row in content["rows"]]
    assert json.loads(run("methods", "dc", "--json", "-")[1])["rows"][0]["settings"]["metric"]["choices"] == [
        *("ours", "mse", "cos")
    ]
    assert {row["name"] for row in json.loads(run("methods", "--json", "-")[1])["rows"]} == set(METHODS)
    content = json.loads(run("info", "--json", "-")[1])
    assert content["meta"]["facts"]["torch"]
    assert {"op", "device", "active", "others"} <= content["rows"][0].keys()


def test_folders_are_checked_without_being_made(tmp_path):
    files.check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "f").write_text("")
    with pytest.raises(OSError, match="is a file"):
        files.check_folder(tmp_path / "f" / "b")
    assert Path(tmp_path / "f").exists()
