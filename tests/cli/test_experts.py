"""``fastdd experts``: train, import, export, check; one clear line for every bad input."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from fastdd import api, report
from fastdd.experts.store import Experts

FEW = ["--dataset", "c-digits", "--num-experts", 2, "--epochs", 2, "--width", 4, "--batch-train", 256]


@pytest.fixture
def run(run):
    """Runs ``fastdd experts``; returns (exit code, stdout, stderr)."""
    return partial(run, "experts")


def test_train_check_export_import(run, tmp_path):
    code, text, errors = run(*FEW, "--debias", "fairdd", "--eval-every", 1, "--json", "e.json")
    assert (code, errors) == (0, "")
    folder = tmp_path / "runs" / "experts-fairdd-c-digits"
    assert all(word in text for word in ("accuracy", "DEO_M", "DEO_A", "2 experts, 2 epochs", str(folder.name)))
    content = report.read_json("e.json")
    assert [(row["epoch"], row["experts"]) for row in content["rows"]] == [(1, 2), (2, 2)]
    trained = Experts.open(folder)
    accuracies = [entry["evaluations"][1]["accuracy"] for entry in trained.manifest["experts"]]
    assert content["rows"][1]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert content["rows"][1]["accuracy"]["std"] == pytest.approx(np.std(accuracies))
    assert content["meta"]["digest"] == trained.digest()
    assert content["meta"]["config"]["debias"] == "fairdd"

    code, text, _ = run("check", folder)
    assert code == 0
    assert "every SHA-256 is right" in text
    assert f"{accuracies[1]:.1f}" in text

    assert run("export", folder, "--out", "buffers", "--per-file", 1)[0] == 0
    files = sorted((tmp_path / "buffers").iterdir())
    assert [file.name for file in files] == ["replay_buffer_0.pt", "replay_buffer_1.pt"]
    assert len(torch.load(files[0], weights_only=True)) == 1
    network = ["--dataset", "c-digits", "--width", 4, "--depth", 2, "--debias", "fairdd"]
    # Whatever the order in which a shell names them.
    code, text, errors = run("import", *reversed(files), *network, "--out", "again")
    assert (code, errors) == (0, "")
    again = Experts.open(tmp_path / "again")
    assert torch.equal(again.values, trained.values)
    assert again.digest() == trained.digest()
    assert (again.manifest["dataset_digest"], again.manifest["config"]["lr_teacher"]) == (None, None)
    assert again.manifest["config"]["debias"] == "fairdd"
    code, text, _ = run("check", "again")
    assert code == 0


def test_import_with_whitening(run):
    assert run(*FEW, "--zca", "--num-experts", 1, "--out", "a", "--eval-every", 0)[0] == 0
    assert run("export", "a", "--out", "buffers")[0] == 0
    network = ["--dataset", "c-digits", "--width", 4, "--depth", 2, "--zca"]
    assert run("import", "buffers/replay_buffer_0.pt", *network, "--out", "b")[0] == 0
    first, second = Experts.open("a"), Experts.open("b")
    assert first.zca.digest() == second.zca.digest()
    assert first.digest() == second.digest()


@pytest.mark.usefixtures("few_steps")
def test_kde_weights_are_computed_kept_and_reused(run, tmp_path):
    weights = tmp_path / "w.npy"
    np.save(weights, np.ones(1297, np.float32))
    code, text, errors = run(*FEW, "--debias", "kde", "--weights", weights, "--out", "a")
    assert code == 0
    assert "the weights are all alike" in errors
    assert "weight" in text
    assert run(*FEW, "--out", "b")[0] == 0
    assert torch.equal(Experts.open("a").values, Experts.open("b").values)  # all count alike
    code, _, errors = run(*FEW, "--debias", "kde", "--out", "c")
    assert (code, errors) == (0, "")
    assert (tmp_path / "c" / "weights.safetensors").exists()
    before = Experts.open("c").digest()
    assert run(*FEW, "--debias", "kde", "--out", "c", "--resume")[0] == 0
    assert Experts.open("c").digest() == before
    assert not torch.equal(Experts.open("c").values, Experts.open("a").values)


def test_groups_in_place_of_the_given_ones(run, tmp_path):
    np.save("g.npy", np.zeros(1297, np.int64))
    assert run(*FEW, "--debias", "fairdd", "--groups", "g.npy", "--out", "a")[0] == 0
    assert run(*FEW, "--out", "b")[0] == 0
    first = Experts.open("a")
    assert torch.equal(first.values, Experts.open("b").values)  # one group a class: nothing to weigh
    # Tested on the groups that the data set has.
    assert first.manifest["experts"][0]["evaluations"][-1]["deo_m"] is not None


def test_bad_input_in_one_line(run, tmp_path):
    assert run(*FEW, "--out", "a", "--eval-every", 0)[0] == 0
    values = np.load("a/trajectories.npy")
    (tmp_path / "text.pt").write_text("no buffer")
    (tmp_path / "empty").mkdir()
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    cases = [
        ((), "--dataset is missing"),
        ((*FEW, "--out", "a"), "already holds experts; continue them with --resume"),
        (
            (*FEW, "--out", "a", "--resume", "--eval-every", 0, "--seed", 1),
            "holds experts with seed=0, not 1; choose another --out",
        ),
        ((*FEW, "--debias", "fairdd-iw"), "experts can't be trained with debias 'fairdd-iw'"),
        ((*FEW, "--weights", "w.npy"), "weights are for debias "),
        ((*FEW, "--groups", "kmeans"), "groups are for debias "),
        ((*FEW, "--debias", "kde", "--weights", "w.npy"), "there is no file w.npy"),
        ((*FEW, "--lr-teacher", 0), "lr_teacher must be above 0, not 0.0"),
        ((*FEW, "--processes", 0), "processes must be at least 1, not 0"),
        ((*FEW, "--json", "missing/e.json"), "the folder of missing/e.json does not exist"),
        ((*FEW, "--lr-teacher", 1e20), "lower lr_teacher (1e+20)"),
        (("check", "empty"), "there are no experts in empty: manifest.json is missing"),
        (("export", "empty", "--out", "b"), "there are no experts in empty"),
        (("import", "text.pt", "--dataset", "c-digits", "--out", "b"), "text.pt is not a buffer of tensors only"),
        (("import", "none.pt", "--dataset", "c-digits", "--out", "b"), "there is no file none.pt"),
        (("import", "text.pt", "--out", "b"), "--dataset is missing"),
        (("import", "text.pt", "--dataset", "c-digits", "--out", "a"), "a is not empty; give another folder"),
    ]
    for arguments, message in cases:
        code, _, errors = run(*arguments)
        assert code in (1, 2), arguments
        assert message in errors, (arguments, errors)
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
    assert run("export", "a", "--out", "buffers")[0] == 0
    code, _, errors = run("import", "buffers/replay_buffer_0.pt", "--dataset", "c-digits", "--out", "b")
    assert code == 2
    assert "parameter 0 is features.0.weight [4, 3, 3, 3], the network has features.0.weight [64, 3, 3, 3]" in errors
    values[1, 1, 1] += 1
    np.save("a/trajectories.npy", values)
    code, _, errors = run("check", "a")
    assert (code, errors) == (1, "error: a: the values of experts 1 are not those written\n")
    (tmp_path / "a" / "manifest.json").write_text(json.dumps({**manifest, "experts": [manifest["experts"][0], None]}))
    assert "holds 1 of 2 experts; finish it with fastdd experts --resume" in run("check", "a")[2]


def test_an_interrupted_training_says_how_far_it_came(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt("stopped after 3 of 8 epochs; --resume continues")

    monkeypatch.setattr(api, "train_experts", interrupted)
    code, _, errors = run(*FEW)
    assert (code, errors) == (130, "interrupted: stopped after 3 of 8 epochs; --resume continues\n")


def test_help_names_the_commands(run):
    code, text, _ = run("--help")
    assert code == 0
    assert all(word in text for word in ("import", "export", "check", "--num-experts", "--zca"))
