"""``fastdd audit``."""

import json
from pathlib import Path

import numpy as np
import pytest

import fastdd
from fastdd.data import save_store
from fastdd.data.initial import random_set

QUICK = ("--nets", "1", "--probe-steps", "40", "--per-cell", "2")


def test_a_data_set_is_audited_by_its_name(run):
    code, out, err = run("audit", "c-digits", "--json", "a.json")
    assert (code, err) == (0, "")
    assert "89.6 % of them of the majorities" in out
    assert "condensed ratio: 7.71 % at IPC 10" in out
    row = json.loads(Path("a.json").read_text())["rows"][0]
    assert row["of_set"] is None
    assert [one["use"] for one in row["data"]["augmented"]] == ["none", "usb", "asb", "ffr-1", "ffr-2"]


def test_a_run_is_audited_and_its_report_marked(run):
    run("distill", "--dataset", "c-digits", "--ipc", "1", "--iterations", "1", "--batch-real", "4", "--out", "run")
    code, out, err = run("audit", "run", *QUICK, "--json", "-")
    assert code == 0
    assert "λ, mean over classes" in err  # words, as results go to standard output
    found = json.loads(out)
    assert found == json.loads(Path("run/audit.json").read_text())
    assert len(found["rows"][0]["of_set"]["groups"]) == 10
    run("report", "run", "--embedding", "none")
    assert Path("run/report.html").read_text().count('<button type="button" class="marked"') == 10


def test_a_set_alone_is_audited_and_nothing_is_written(run, tmp_path):
    random_set(fastdd.data.load("c-digits"), 1).save(tmp_path / "set.safetensors")
    code, out, _ = run("audit", "set.safetensors", *QUICK, "--probe-accuracy", "100", "--probe-steps", "1")
    assert code == 0
    assert "warning: the probe tells the groups of held-out images with an accuracy of" in out
    assert [path.name for path in tmp_path.iterdir()] == ["set.safetensors"]


@pytest.fixture
def mono(tmp_path):
    """A packed store without groups, and a set of other classes."""
    data = fastdd.data.load("c-digits")
    save_store(data.with_groups(np.zeros(len(data.train), np.int64)), tmp_path / "store")
    random_set(data, 1).save(tmp_path / "set.safetensors")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["store"], "has no groups, and an audit goes by them"),
        (["set.safetensors", "--dataset", "store"], "has no groups, and an audit goes by them"),
        (["c-digits", "--dataset", "store"], "c-digits is a data set itself: --dataset store is for a synthetic set"),
        (["nothing"], "nothing"),
        (["set.safetensors", "--nets", "0"], "nets must be at least 1, not 0"),
        (["set.safetensors", "--probe-accuracy", "101"], "probe_accuracy must be at most 100, not 101"),
    ],
)
def test_what_cannot_be_audited_is_one_line(run, mono, words, told):
    code, out, err = run("audit", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
