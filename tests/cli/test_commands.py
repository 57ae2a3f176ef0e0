"""Commands as a user types them: what they print, write and return, and one clear line for every bad input."""

import dataclasses
import gzip
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from fastdd import __version__, report
from fastdd.cli import demo
from fastdd.core import ext as _ext
from fastdd.data import Dataset, Split, SyntheticSet, Zca, load, save_store
from fastdd.data.initial import random_set
from fastdd.debias import modes_that_need
from fastdd.evaluation import EvaluationPlan
from fastdd.methods.dm import Dm

SMALL = ["--dataset", "c-digits", "--ipc", 1, "--iterations", 2, "--width", 8, "--batch-real", 8]


def test_distill_then_evaluate(run, tmp_path):
    out = tmp_path / "run"
    code, text, _ = run("distill", *SMALL, "--debias", "fairdd", "--snapshots", 3, "--out", out)
    assert code == 0
    assert "10 images in" in text
    expected = {"config.yaml", "metrics.jsonl", "checkpoint.pt", "synthetic.safetensors", "preview.png", "result.json"}
    assert expected | {"snapshots.png"} <= set(os.listdir(out))
    assert {path.name for path in (out / "snapshots").iterdir()} == {f"iteration-{n:08}.safetensors" for n in (0, 1, 2)}
    code, text, _ = run("evaluate", out, "--nets", 2, "--epochs", 1, "--json", tmp_path / "e.json")
    assert code == 0
    assert "dm+fairdd" in text
    content = report.read_json(tmp_path / "e.json")
    row = content["rows"][0]
    assert (row["dataset"], row["method"], row["debias"], row["ipc"], row["nets"]) == (
        "c-digits",
        "dm",
        "fairdd",
        1,
        2,
    )
    assert {"accuracy", "deo_m", "deo_a", "wa", "ba", "seconds", "arch"} <= set(row)
    assert report.read_json(out / "result.json")["rows"] == content["rows"]
    # Nothing that was measured gets lost: another evaluation adds its row, and a resume keeps them.
    assert run("evaluate", out, "--nets", 1, "--epochs", 1, "--deo", "pairwise")[0] == 0
    assert run("distill", *SMALL, "--debias", "fairdd", "--out", out, "--resume")[0] == 0
    rows = report.read_json(out / "result.json")["rows"]
    assert [(row["nets"], row["deo"]) for row in rows] == [(2, "range"), (1, "pairwise")]


def test_final_evaluation_of_distill(run, tmp_path):
    code, text, _ = run(
        "distill", *SMALL, "--out", tmp_path / "r", "--nets", 1, "--epochs", 1, "--json", tmp_path / "d.json"
    )
    assert code == 0
    assert "accuracy" in text
    rows = report.read_json(tmp_path / "d.json")["rows"]
    assert [row["method"] for row in rows] == ["dm"]
    assert report.read_json(tmp_path / "r" / "result.json")["rows"] == rows


def test_held_out_training_images_are_said_to_be_so(run, tmp_path):
    out, common = tmp_path / "r", ("--nets", 1, "--epochs", 1)
    assert run("distill", *SMALL, "--val-split", 0.2, "--out", out)[0] == 0
    assert "held-out training images" in run("evaluate", out, *common)[1]
    assert "test set" in run("evaluate", out, *common, "--val-split", 0)[1]
    assert [row["tested_on"] for row in report.read_json(out / "result.json")["rows"]] == ["validation", "test"]


def test_evaluations_on_the_way_are_printed_as_they_come_and_reported(run, tmp_path):
    options = ("--eval-every", 1, "--eval-nets", 1, "--eval-epochs", 1, "--out", tmp_path / "r")
    code, text, _ = run("distill", *SMALL, *options)
    assert code == 0
    lines = text.splitlines()
    assert lines[0] == "on the way, test set, 1 x ConvNetD2W8, 1 epoch:"
    rows = [json.loads(line) for line in (tmp_path / "r" / "evaluations.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    for line, row in zip(lines[1:4], rows, strict=True):
        accuracy, deo_m, deo_a = (f"{row[name]['mean']:.1f}" for name in ("accuracy", "deo_m", "deo_a"))
        assert line == f"  iteration {row['iteration']}: accuracy {accuracy}, DEO_M {deo_m}, DEO_A {deo_a}"
    assert run("distill", *SMALL, "--out", tmp_path / "r", "--resume")[0] == 0
    assert run("report", tmp_path / "r")[0] == 0
    assert "Accuracy over iterations" in (tmp_path / "r" / "report.html").read_text()


def test_resume_of_a_finished_run(run, tmp_path):
    first = run("distill", *SMALL, "--out", tmp_path / "r")
    before = (tmp_path / "r" / "synthetic.safetensors").read_bytes()
    again = run("distill", *SMALL, "--out", tmp_path / "r", "--resume")
    assert (first[0], again[0]) == (0, 0)
    assert (tmp_path / "r" / "synthetic.safetensors").read_bytes() == before


def test_baselines(run, tmp_path):
    common = ("--dataset", "c-digits", "--nets", 1, "--epochs", 1, "--arch", "MLP", "--json", tmp_path / "b.json")
    assert run("evaluate", "random", "--ipc", 1, *common)[0] == 0
    assert report.read_json(tmp_path / "b.json")["rows"][0]["method"] == "random"
    assert run("evaluate", "whole", *common)[0] == 0
    row = report.read_json(tmp_path / "b.json")["rows"][0]
    assert (row["method"], row["ipc"]) == ("whole", None)


def test_a_run_goes_on_from_another_ones_set(run, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("distill", *SMALL, "--out", first)[0] == 0
    code, _, error = run("distill", *SMALL, "--init", first, "--lr-img", 1e-30, "--out", second)
    assert (code, error.count("\n")) == (0, 1)  # that nothing has changed
    assert torch.equal(*(SyntheticSet.load(out / "synthetic.safetensors").images for out in (first, second)))
    shutil.rmtree(first)
    again = ("distill", *SMALL, "--init", first, "--lr-img", 1e-30)
    assert run(*again, "--out", second, "--resume")[0] == 0
    one_line(run(*again, "--out", tmp_path / "third"), 2, f"init {first}: there is no stored set")
    one_line(run("estimate", "distill", *SMALL, "--init", first), 2, f"init {first}: there is no stored set")
    one_line(run("distill", *SMALL, "--init", "reel"), 2, "init: must be one of real, balanced, noise, or the path")


def test_what_is_wrong_with_figures_on_the_way_is_told_when_it_first_occurs(run, tmp_path, monkeypatch):
    def doubts(number, loss, *_):
        return f"network {number} learned nothing (loss {loss:.9g}): more --epochs"

    monkeypatch.setattr("fastdd.evaluation.networks.doubt_of_network", doubts)
    options = ("--eval-every", 1, "--eval-nets", 2, "--eval-epochs", 1, "--out", tmp_path / "r")
    code, text, _ = run("distill", *SMALL, *options)
    assert code == 0
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["iteration", "warning:", "warning:", "iteration", "iteration"]
    assert lines[2].startswith("  warning: network 0 learned nothing (loss ")
    rows = [json.loads(line) for line in (tmp_path / "r" / "evaluations.jsonl").read_text().splitlines()]
    assert all(len(row["warnings"]) == 2 for row in rows)


def test_a_run_made_from_a_store_is_evaluated_on_it(run, tmp_path, monkeypatch):
    """The run's folder tells where the store lay, wherever the command is given."""
    monkeypatch.chdir(tmp_path)
    digits = load("c-digits")
    train, test = digits.train.take(np.arange(400)), digits.test.take(np.arange(60))
    half = dataclasses.replace(digits, name="mine", train=train, test=test)
    save_store(half, "store")
    assert run("distill", "--dataset", "store", "--ipc", 1, "--iterations", 1, "--width", 4, "--out", "made")[0] == 0
    monkeypatch.chdir("/")
    made, once = tmp_path / "made", ("--nets", 1, "--epochs", 1)
    for target in (made, made / "synthetic.safetensors"):
        code, output, error = run("evaluate", target, *once, "--json", tmp_path / "x.json")
        assert code == 0, error
        assert report.read_json(tmp_path / "x.json")["meta"]["dataset_digest"] == half.digest()
        assert "mine, test set" in output
        assert "bit for bit" not in error
    code, output, _ = run("report", made, "--embedding", "none")
    assert (code, "without real images" in output) == (0, False)
    save_store(dataclasses.replace(half, test=half.train), tmp_path / "store", overwrite=True)
    assert "mine is not, bit for bit, what" in run("evaluate", made, *once)[2]
    shutil.rmtree(tmp_path / "store")
    one_line(
        run("evaluate", made), 2, "was made from the packed store", str(tmp_path / "store"), "give --dataset STORE"
    )
    shutil.copy(made / "synthetic.safetensors", tmp_path / "alone.safetensors")
    one_line(
        run("evaluate", tmp_path / "alone.safetensors"), 2, "is of 'mine', which is no data set", "--dataset STORE"
    )
    # Its options are another run's, and know the store no more than they know the digest of its data.
    assert (
        run("distill", "--dataset", "c-digits", "--config", made / "config.yaml", "--out", tmp_path / "again")[0] == 0
    )


def test_several_networks(run, tmp_path):
    arguments = ("--dataset", "c-digits", "--ipc", 1, "--nets", 1, "--epochs", 1, "--json", tmp_path / "n.json")
    assert run("evaluate", "random", "--arch", "convnetd1,ConvNetD2", *arguments)[0] == 0
    assert [row["arch"] for row in report.read_json(tmp_path / "n.json")["rows"]] == ["ConvNetD1", "ConvNetD2"]


def test_networks_that_the_images_do_not_fit_are_told_before_any_is_trained(run, monkeypatch):
    monkeypatch.setattr(EvaluationPlan, "evaluate", lambda *arguments: pytest.fail("trained"))
    code, _, error = run("evaluate", "random", "--dataset", "c-digits", "--ipc", 1, "--arch", "lenet,convnetd6")
    assert code == 2
    assert error == (
        "error: images of 16x16 pixels are too small for a ConvNet of depth 6, which takes 64x64 and more; "
        "a ConvNet of depth 4 takes them\n"
    )


@pytest.fixture
def learned(tmp_path):
    """The path of a set with a learned step size and ZCA."""
    digits = load("c-digits")
    made = random_set(digits, 1, zca=Zca.fit(digits.train.images))
    made.learning_rate = 0.02
    made.save(tmp_path / "learned.safetensors")
    return tmp_path / "learned.safetensors"


def test_evaluates_with_the_learned_step_size_or_another(run, learned, tmp_path):
    arguments = ("evaluate", learned, "--nets", 1, "--epochs", 1, "--json", tmp_path / "l.json")
    for given, rate in ((), 0.02), (("--lr-net", 0.05), 0.05):
        assert run(*arguments, *given)[0] == 0
        assert report.read_json(tmp_path / "l.json")["rows"][0]["learning_rate"] == rate


def test_info_and_version_and_help(run):
    code, text, _ = run("info")
    assert code == 0
    assert all(word in text for word in ("torch", "extension", "triton", "faiss", "GPU"))
    assert run("--version")[1].strip() == __version__
    for command in ("demo", "distill", "evaluate", "data", "bench", "info"):
        assert command in run("--help")[1]
    assert run()[0] == 0


def test_data_commands(run, tmp_path):
    code, text, _ = run("data", "list")
    assert code == 0
    assert all(name in text for name in ("c-digits", "c-mnist-fg", "cifar10-s", "folder"))
    store = tmp_path / "store"
    assert run("data", "build", "c-digits", "--out", store, "--bias-ratio", 0.5)[0] == 0
    code, text, _ = run("data", "check", store)
    assert code == 0
    assert "1297 images per class and group" in text
    assert run("distill", *SMALL[2:], "--dataset", store, "--out", tmp_path / "r")[0] == 0
    damaged = np.load(store / "train-labels.npy")
    damaged[0] = (damaged[0] + 1) % 10
    np.save(store / "train-labels.npy", damaged)
    code, _, errors = run("data", "check", store)
    assert code == 1
    assert errors.count("\n") == 1


def one_line(result, code, *words):
    assert result[0] == code, result
    assert result[2].startswith("error: ")
    assert "Errno" not in result[2]
    assert result[2].count("\n") == 1
    assert "Traceback" not in result[2]
    for word in words:
        assert word in result[2]


GRADIENT_SETTINGS = {
    "method": "dsa",
    "metric": "cos",
    "outer_loop": 2,
    "inner_loop": 1,
    "lr_net": 0.02,
    "memory": "low",
    "precision": "fp32",
    "sampling": "random",
}


@pytest.mark.parametrize("of_method", [{}, GRADIENT_SETTINGS])
def test_every_setting_of_distill_reaches_the_run(run, tmp_path, of_method):
    settings = {
        "arch": "ConvNetD1",
        "batch_real": 4,
        "debias": "fairdd",
        "depth": 1,
        "dsa_strategy": "crop_flip",
        "init": "noise",
        "ipc": 1,
        "iterations": 1,
        "lr_img": 0.5,
        "method": "dm",
        "precision": "bf16",
        "sampling": "stratified",
        "seed": 5,
        "width": 4,
        **of_method,
    }
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    out = tmp_path / "r"
    assert (
        run("distill", "--dataset", "c-digits", "--bias-ratio", 0.5, "--device", "cpu", *options, "--out", out)[0] == 0
    )
    used = yaml.safe_load((out / "config.yaml").read_text())["run"]
    assert {name: used[name] for name in settings} == settings
    made = SyntheticSet.load(out / "synthetic.safetensors")
    assert {"bias_ratio": 0.5, "seed": 0}.items() <= made.metadata["provenance"]["parameters"].items()


@pytest.mark.usefixtures("few_steps")
def test_kde_weights_of_a_run_are_computed_reported_kept_and_reused(run, tmp_path):
    out = tmp_path / "r"
    code, text, _ = run("distill", *SMALL, "--debias", "kde", "--method", "dc", "--out", out)
    assert code == 0
    assert "weights: worth" in text
    made = SyntheticSet.load(out / "synthetic.safetensors").metadata["kde"]
    assert made["kde"]["variance"] == 0.1
    assert len(made["diagnostics"]["ess"]) == 10
    before, images = (out / "weights.safetensors").read_bytes(), (out / "synthetic.safetensors").read_bytes()
    assert run("distill", *SMALL, "--debias", "kde", "--method", "dc", "--out", out, "--resume")[0] == 0
    assert (out / "weights.safetensors").read_bytes() == before
    assert (out / "synthetic.safetensors").read_bytes() == images
    other = ("--method", "dc", "--out", tmp_path / "other", "--weights", out / "weights.safetensors")
    assert run("distill", *SMALL, "--debias", "kde", *other)[0] == 0
    assert (tmp_path / "other" / "synthetic.safetensors").read_bytes() == images
    # A run with other weights is another run, and the one that is there keeps its own.
    np.save(tmp_path / "rising.npy", np.linspace(1, 2, 1297))
    assert run("weights", "--dataset", "c-digits", "--steps", 1, "--out", tmp_path / "short.safetensors")[0] == 0
    for other in ("rising.npy", "short.safetensors"):
        again = ("--method", "dc", "--out", out, "--resume", "--weights", tmp_path / other)
        one_line(run("distill", *SMALL, "--debias", "kde", *again), 2, "other weights, groups or first images")
    assert (out / "weights.safetensors").read_bytes() == before


def test_weights_from_an_array_of_ones_own(run, tmp_path):
    np.save(tmp_path / "w.npy", np.arange(1, 1298))
    options = ("--debias", "kde", "--weights", tmp_path / "w.npy", "--sampling", "weighted", "--out", tmp_path / "r")
    assert run("distill", *SMALL, *options)[0] == 0
    assert SyntheticSet.load(tmp_path / "r" / "synthetic.safetensors").metadata["kde"]["source"] == "w.npy"


@pytest.mark.usefixtures("few_steps")
def test_groups_that_are_found_are_kept(run, tmp_path):
    out = tmp_path / "r"
    assert run("distill", *SMALL, "--debias", "fairdd", "--groups", "kmeans", "--out", out)[0] == 0
    groups = np.load(out / "groups.npy")
    assert groups.shape == (1297,)
    assert len(np.unique(groups)) == 10
    assert run("distill", *SMALL, "--debias", "fairdd", "--groups", "kmeans", "--out", out, "--resume")[0] == 0
    images = (out / "synthetic.safetensors").read_bytes()
    given = ("--groups", out / "groups.npy", "--out", tmp_path / "given")
    assert run("distill", *SMALL, "--debias", "fairdd", *given)[0] == 0
    theirs = SyntheticSet.load(tmp_path / "given" / "synthetic.safetensors")
    assert theirs.metadata["groups"] == "groups.npy"
    assert (theirs.images == SyntheticSet.load(out / "synthetic.safetensors").images).all()
    assert (out / "synthetic.safetensors").read_bytes() == images


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.full)])
def test_demo(run, tmp_path, monkeypatch, full):
    """What it makes and tells, with next to no work in it."""
    distill, evaluate = demo.distill_with_bar, demo.evaluate_with_bar
    small = {"iterations": 1, "width": 4, "batch_real": 4}

    def fast(*arguments, **settings):
        loops = {"outer_loop": 1} if settings["method"] == "dc" else {}
        return distill(*arguments, **{**settings, **small, **loops})

    monkeypatch.setattr(demo, "distill_with_bar", fast)
    monkeypatch.setattr(
        demo, "evaluate_with_bar", lambda *a, **s: evaluate(*a, **{**s, "nets": 1, "epochs": 1, "width": 4})
    )
    file = tmp_path / "demo.json"
    assert run("demo", *(["--full"] if full else []), "--out", tmp_path, "--json", file)[0] == 0
    sets = [("dm", "none"), ("dm", "fairdd")]
    sets += [("dm", "kde"), ("dc", "none"), ("dc", "fairdd")] if full else []
    rows = [(row["method"], row["debias"]) for row in report.read_json(file)["rows"]]
    assert rows == [("whole", "none"), ("random", "none"), *sets]
    for method, debias in sets:
        assert (tmp_path / f"{method}-{debias}" / "preview.png").exists()
        made = SyntheticSet.load(tmp_path / f"{method}-{debias}" / "synthetic.safetensors")
        assert made.metadata["run"]["method"] == method


def test_demo_tells_an_unwritable_out_before_the_work(run, tmp_path):
    (tmp_path / "file").write_text("")
    one_line(run("demo", "--out", tmp_path / "file" / "demo"), 1, str(tmp_path / "file"))


class TestBadInput:
    def test_unknown_data_set(self, run):
        one_line(run("distill", "--dataset", "c-mist-fg"), 2, "unknown data set 'c-mist-fg'", "c-mnist-fg")

    def test_no_data_set(self, run):
        one_line(run("distill"), 2, "--dataset is missing", "c-digits")

    def test_no_root(self, run):
        one_line(run("distill", "--dataset", "c-mnist-fg"), 2, "--data-root", "train-images-idx3-ubyte")

    def test_missing_files(self, run, tmp_path):
        result = run("distill", "--dataset", "c-mnist-fg", "--data-root", tmp_path)
        one_line(result, 2, "train-images-idx3-ubyte", str(tmp_path), "mnist")

    def test_truncated_gz(self, run, tmp_path):
        for split, n in (("train", 4), ("t10k", 2)):
            images = b"\0\0\x08\x03" + n.to_bytes(4, "big") + (28).to_bytes(4, "big") * 2 + bytes(n * 784)
            labels = b"\0\0\x08\x01" + n.to_bytes(4, "big") + bytes(n)
            (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images)[:-12])
            (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
        result = run("distill", "--dataset", "mnist", "--data-root", tmp_path)
        one_line(result, 1, "train-images-idx3-ubyte.gz")

    def test_ipc_larger_than_a_class(self, run, tmp_path):
        result = run("distill", "--dataset", "c-digits", "--ipc", 5000, "--out", tmp_path / "r")
        one_line(result, 2, "IPC 5000 is larger than every class")
        assert not (tmp_path / "r").exists()

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            (np.r_[-1.0, np.ones(1296)], "finite and at least 0"),
            (np.r_[np.nan, np.ones(1296)], "finite and at least 0"),
            (np.zeros(1297), "all 0"),
            (np.ones(5), "[1297]"),
        ],
    )
    def test_weights(self, run, tmp_path, weights, words):
        np.save(tmp_path / "w.npy", weights)
        options = ("--debias", "kde", "--weights", tmp_path / "w.npy", "--out", tmp_path / "r")
        one_line(run("distill", *SMALL, *options), 2, "w.npy", words)
        assert not (tmp_path / "r").exists()

    def test_weights_of_another_data_set(self, run, tmp_path):
        file = tmp_path / "w.safetensors"
        common = ("--dataset", "c-digits", "--bias-ratio", 0.5, "--steps", 1, "--out", file)
        assert run("weights", *common)[0] == 0
        result = run("distill", *SMALL, "--debias", "kde", "--weights", file, "--out", tmp_path / "r")
        one_line(result, 2, "w.safetensors", "digest")

    def test_weights_and_groups_without_their_mode(self, run, tmp_path):
        one_line(run("distill", *SMALL, "--weights", "w.npy"), 2, "weights", *modes_that_need("weights"), "not none")
        one_line(run("distill", *SMALL, "--debias", "kde", "--groups", "kmeans"), 2, "groups", "debias=kde")

    def test_groups(self, run, tmp_path):
        for groups, words in ((np.zeros(5, np.int64), "[1297]"), (np.zeros(1297), "int64")):
            np.save(tmp_path / "g.npy", groups)
            options = ("--debias", "fairdd", "--groups", tmp_path / "g.npy", "--out", tmp_path / "r")
            one_line(run("distill", *SMALL, *options), 2, "groups must be int64", words)
        options = ("--debias", "fairdd", "--groups", "k-means", "--out", tmp_path / "r")
        one_line(run("distill", *SMALL, *options), 2, "k-means")

    def test_an_out_that_holds_a_run_is_told_before_weights_are_computed(self, run, tmp_path):
        assert run("distill", *SMALL, "--out", tmp_path)[0] == 0
        one_line(run("distill", *SMALL, "--debias", "kde", "--out", tmp_path), 2, "already holds a run")
        assert not (tmp_path / "weights.safetensors").exists()

    @pytest.mark.parametrize("ipc", [0, -1])
    def test_zero_or_negative_ipc(self, run, ipc):
        one_line(run("distill", "--dataset", "c-digits", "--ipc", ipc), 2, f"IPC must be at least 1, not {ipc}")

    def test_labels_out_of_range(self, run, tmp_path):
        store = tmp_path / "store"
        run("data", "build", "c-digits", "--out", store)
        labels = np.load(store / "train-labels.npy")
        labels[3] = 12
        np.save(store / "train-labels.npy", labels)
        one_line(run("distill", "--dataset", store, "--ipc", 1), 1, "label 12 at row 3 is outside 0..9")

    def test_run_folder_of_another_configuration(self, run, tmp_path):
        run("distill", *SMALL, "--out", tmp_path / "r")
        again = run("distill", *SMALL, "--debias", "fairdd", "--out", tmp_path / "r", "--resume")
        one_line(again, 2, "debias=none, not fairdd")
        one_line(run("distill", *SMALL, "--out", tmp_path / "r"), 2, "--resume")

    def test_corrupt_checkpoint_falls_back(self, run, tmp_path):
        run("distill", *SMALL, "--out", tmp_path / "r", "--checkpoint-seconds", 0)
        expected = (tmp_path / "r" / "synthetic.safetensors").read_bytes()
        (tmp_path / "r" / "checkpoint.pt").write_bytes(b"\0" * 100)
        code, _, errors = run("distill", *SMALL, "--out", tmp_path / "r", "--resume")
        assert code == 0
        assert errors.startswith("warning: ")
        assert "is damaged and is not used" in errors
        assert (tmp_path / "r" / "synthetic.safetensors").read_bytes() == expected

    def test_a_run_whose_records_are_damaged(self, run, tmp_path):
        run("distill", *SMALL, "--out", tmp_path / "r")
        (tmp_path / "r" / "result.json").write_text("{")
        one_line(run("evaluate", tmp_path / "r", "--nets", 1), 2, "result.json is damaged", "; move it away")
        (tmp_path / "r" / "result.json").unlink()
        (tmp_path / "r" / "config.yaml").write_text("run: [")
        code, _, errors = run("evaluate", tmp_path / "r", "--data-option", "foo=1")
        assert code == 2
        assert "config.yaml is damaged" in errors

    def test_unwritable_out(self, run, tmp_path):
        (tmp_path / "file").write_text("")
        one_line(run("distill", *SMALL, "--out", tmp_path / "file" / "r"), 1, "cannot create the run folder")

    def test_no_space(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
        one_line(run("distill", *SMALL, "--out", tmp_path / "r"), 1, "KiB free; the run needs")

    def test_a_full_disk_is_told_before_any_network_is_trained(self, run, tmp_path, monkeypatch):
        assert run("distill", *SMALL, "--out", "r")[0] == 0
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0})())
        for trainer in ("fastdd.debias.density.embedding.train_embedding", "fastdd.evaluation.protocol.train_epoch"):
            monkeypatch.setattr(trainer, None)
        digits, full = ("--dataset", "c-digits"), r"has 0.0 KiB free"
        one_line(run("distill", *SMALL, "--debias", "kde", "--out", "k"), 1, full, "the run needs")
        one_line(run("distill", *SMALL, "--debias", "fairdd", "--groups", "kmeans", "--out", "k"), 1, full)
        one_line(
            run("experts", *digits, "--debias", "kde", "--out", "e"), 1, "0.0 MiB free; the training of 20 experts"
        )
        one_line(run("weights", *digits, "--out", "w.safetensors"), 1, full, "w.safetensors needs")
        one_line(run("evaluate", "r", "--nets", 1, "--epochs", 1), 1, full, "result.json needs")
        one_line(run("evaluate", "random", *digits, "--ipc", 1, "--json", "x.json"), 1, full, "x.json needs")
        one_line(run("demo"), 1, "has 0.0 MiB free; the demo needs")
        assert sorted(os.listdir(tmp_path)) == ["r", "runs"]

    def test_a_run_whose_folder_goes_away_fails_in_one_line(self, run, tmp_path, monkeypatch):
        step = Dm.step

        def remove_and_step(self, number):
            if number == 1:
                shutil.rmtree(tmp_path / "r")
            return step(self, number)

        monkeypatch.setattr(Dm, "step", remove_and_step)
        gone = "metrics.jsonl: its folder is gone"
        one_line(run("distill", *SMALL, "--out", tmp_path / "r"), 1, "cannot write", gone)

    def test_unknown_options_and_words(self, run):
        one_line(run("distill", "--colour", "red"), 2, "--colour")
        one_line(run("destill"), 2, "destill")
        one_line(run("distill", "--ipc", "ten"), 2, "--ipc")
        one_line(run("distill", "--dataset", "c-digits", "--method", "dx"), 2, "unknown method 'dx'")
        one_line(run("distill", "--dataset", "c-digits", "--device", "tpu0"), 2, "unknown device 'tpu0'")

    def test_unwritable_json_is_told_before_the_work(self, run, tmp_path):
        one_line(run("distill", *SMALL, "--out", tmp_path / "r", "--json", tmp_path / "no" / "x.json"), 1, "x.json")
        assert not (tmp_path / "r").exists()

    def test_no_networks_or_epochs(self, run, tmp_path):
        one_line(run("distill", *SMALL, "--out", tmp_path / "r", "--evaluate", "--nets", 0), 2, "--nets")
        one_line(run("distill", *SMALL, "--out", tmp_path / "r", "--eval-every", 0), 2, "--eval-every")
        one_line(run("distill", *SMALL, "--out", tmp_path / "r", "--eval-nets", 3), 2, "give eval_every too")
        for name in ("--nets", "--epochs"):  # of an evaluation that no one asked for
            why = f"{name} 3 is of the evaluation at the end: give --evaluate too"
            one_line(run("distill", *SMALL, "--out", tmp_path / "r", name, 3), 2, why)
            one_line(run("estimate", "distill", *SMALL, name, 3), 2, why)
        one_line(run("evaluate", "whole", "--dataset", "c-digits", "--epochs", 0), 2, "--epochs")
        one_line(run("evaluate", "whole", "--dataset", "c-digits", "--ipc", 3), 2, "--ipc 3 is for random")
        one_line(run("evaluate", "whole", "--dataset", "c-digits", "--arch", "MLP, mlp"), 2, "names MLP twice")
        one_line(run("evaluate", "whole", "--dataset", "c-digits", "--arch", "ConvNet,Nope"), 2, "unknown network")
        assert not (tmp_path / "r").exists()

    def test_evaluate_what_is_not_there(self, run, tmp_path):
        one_line(run("evaluate", tmp_path / "nothing"), 2, "no synthetic set at")
        (tmp_path / "x.safetensors").write_bytes(b"nonsense")
        one_line(run("evaluate", tmp_path / "x.safetensors"), 1, "x.safetensors")
        one_line(run("evaluate", "random", "--dataset", "c-digits"), 2, "needs an IPC")

    def test_evaluate_on_a_data_set_that_does_not_fit(self, run, tmp_path):
        run("distill", *SMALL, "--out", tmp_path / "r")
        made = SyntheticSet.load(tmp_path / "r" / "synthetic.safetensors")
        made.images = made.images[..., :8, :8].contiguous()
        made.save(tmp_path / "small.safetensors")
        one_line(run("evaluate", tmp_path / "small.safetensors"), 2, "(3, 8, 8)", "(3, 16, 16)")

    def test_evaluate_images_and_classes_that_do_not_fit(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr(EvaluationPlan, "evaluate", lambda *arguments: pytest.fail("trained"))
        made, broken = random_set(load("c-digits"), 1), tmp_path / "broken.safetensors"
        names = made.metadata["class_names"]
        few, more = ({**made.metadata, "class_names": other} for other in (names[:5], [*names, "ten"]))
        grey = {**made.metadata, "mean": [0.5], "std": [0.5]}
        for images, labels, metadata, why in (
            (made.images[:, :1].contiguous(), made.labels, grey, "(1, 16, 16), those of c-digits are (3, 16, 16)"),
            (made.images[:5], made.labels[:5], few, "the synthetic set is of 5 classes, but c-digits has 10"),
            (made.images, made.labels, more, "the synthetic set is of 11 classes, but c-digits has 10"),
            (made.images[:0], made.labels[:0], made.metadata, "the synthetic set has no images"),
        ):
            SyntheticSet(images, labels, metadata).save(broken)
            for networks in ((), ("--arch", "ConvNetD1,LeNet")):
                one_line(run("evaluate", broken, "--dataset", "c-digits", *networks), 2, why)
        SyntheticSet(made.images * float("nan"), made.labels, made.metadata).save(broken)
        one_line(run("evaluate", broken, "--dataset", "c-digits"), 1, "not finite")

    def test_evaluate_with_options_that_contradict_each_other(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr(EvaluationPlan, "evaluate", lambda *arguments: pytest.fail("trained"))
        random_set(load("c-digits"), 1).save(tmp_path / "one.safetensors")
        one_line(run("evaluate", tmp_path / "one.safetensors", "--ipc", 5), 2, "has an IPC of 1: --ipc 5 is for random")
        whole = ("evaluate", "whole", "--dataset", "c-digits", "--protocol", "fairdd")
        one_line(run(*whole), 2, "for whole, give the epochs too (--epochs)")

    def test_results_that_can_not_be_kept_are_told_before_the_work(self, run, tmp_path, monkeypatch):
        run("distill", *SMALL, "--out", tmp_path / "r")
        monkeypatch.setattr(EvaluationPlan, "evaluate", lambda *arguments: pytest.fail("trained"))
        (tmp_path / "r" / "result.json").write_text('{"schema": 1')
        one_line(run("evaluate", tmp_path / "r"), 2, "result.json is damaged")

    def test_evaluate_a_negative_learned_step_size(self, run, learned):
        made = SyntheticSet.load(learned)
        made.learning_rate = -0.003
        made.save(learned)
        message = "the set's learned step size is -0.003, with which nothing trains; give another (--lr-net)"
        one_line(run("evaluate", learned), 2, message)
        one_line(run("evaluate", learned, "--lr-net", -1), 2, "learning rate must be positive, not -1")
        assert run("evaluate", learned, "--lr-net", 0.01, "--nets", 1, "--epochs", 1)[0] == 0

    def test_evaluate_a_whitened_set_on_images_of_another_size(self, run, learned, tmp_path):
        digits = load("c-digits")
        split = Split(digits.train.images[..., :8, :8].copy(), digits.train.labels, digits.train.groups)
        small = Dataset("small", split, split, digits.class_names, digits.group_names, digits.mean, digits.std, {})
        save_store(small, tmp_path / "store")
        one_line(run("evaluate", learned, "--dataset", tmp_path / "store"), 2, "(3, 16, 16)", "(3, 8, 8)")

    def test_debug_shows_the_traceback(self, run):
        code, _, errors = run("distill", "--dataset", "nope", "--debug")
        assert code == 2
        assert "Traceback" in errors


def test_as_a_process_quiet_when_not_a_terminal(tmp_path):
    command = [sys.executable, "-m", "fastdd.cli", "distill", *map(str, SMALL), "--out", str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.splitlines()
    assert len(warnings) == (0 if _ext.available() else 1), done.stderr
    assert all(line.startswith("warning: fastdd runs on its slower PyTorch reference") for line in warnings)
    assert len(done.stdout.splitlines()) == 1


def test_metrics_are_one_json_object_a_line(run, tmp_path):
    run("distill", *SMALL, "--out", tmp_path / "r")
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]


@pytest.mark.full
def test_runs_networks_and_resumed_runs_find_their_store(run, tmp_path, monkeypatch):
    """What is made from a store is reported, audited, explained and gone on with where no data set is named."""
    monkeypatch.chdir(tmp_path)
    digits = load("c-digits")
    train, test = digits.train.take(np.arange(400)), digits.test.take(np.arange(60))
    half = dataclasses.replace(digits, name="mine", train=train, test=test)
    save_store(half, "store")
    small = ("--ipc", 1, "--width", 4)
    assert run("distill", "--dataset", "store", *small, "--iterations", 1, "--out", "made")[0] == 0
    kept = ("--nets", 1, "--epochs", 1, "--keep-nets", "nets")
    assert run("evaluate", "made", *kept)[0] == 0
    monkeypatch.chdir("/")
    code, output, error = run("distill", *small, "--iterations", 2, "--out", tmp_path / "made", "--resume")
    assert (code, "10 images in" in output) == (0, True), error
    look = ("--features", 20, "--images", 0)
    assert run("explain", tmp_path / "nets", *look)[0] == 0
    again = ("distill", "--config", tmp_path / "made/config.yaml", "--out", tmp_path / "again")
    assert run(*again)[0] == 0
    save_store(dataclasses.replace(half, test=half.train), tmp_path / "store", overwrite=True)
    for words in (("explain", tmp_path / "nets", *look), ("report", tmp_path / "made", "--embedding", "none")):
        code, _, error = run(*words)
        assert code == 0, error
        assert "mine is not, bit for bit, what" in error
    shutil.rmtree(tmp_path / "store")
    resumed = ("distill", *small, "--iterations", 3, "--out", tmp_path / "made", "--resume")
    for words in (resumed, ("explain", tmp_path / "nets", *look), ("audit", tmp_path / "made")):
        one_line(run(*words), 2, "the packed store", "which is not there", "give --dataset STORE")
    assert "give --dataset STORE" in run("report", tmp_path / "made", "--embedding", "none")[1]
