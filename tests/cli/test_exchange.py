"""``fastdd import`` and ``fastdd export``: between projects and back, and one clear line for every bad input."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdd import report
from fastdd.data import SyntheticSet, Zca, load
from fastdd.data.initial import random_set


@pytest.fixture
def original(tmp_path):
    """The path of one real image a class of c-digits."""
    random_set(load("c-digits"), 1).save(tmp_path / "original.safetensors")
    return tmp_path / "original.safetensors"


def one_line(result, code, *words):
    assert result[0] == code, result
    assert result[2].startswith("error: ")
    assert result[2].count("\n") == 1
    for word in words:
        assert word in result[2]


def accuracy(run, path):
    network = ("--nets", 1, "--epochs", 2, "--dsa-strategy", "none", "--arch", "MLP", "--json", "e.json")
    assert run("evaluate", path, *network)[0] == 0
    return report.read_json("e.json")["rows"][0]


@pytest.mark.parametrize("to", ["dc", "mtt", "dcbench", "npz"])
def test_there_and_back_evaluates_alike(run, original, to):
    there = "out.npz" if to == "npz" else "out"
    method = ("--method", "dm") if to == "dcbench" else ()
    code, text, errors = run("export", original, "--to", to, "--out", there, *method)
    assert (code, errors) == (0, "")
    assert there in text
    code, text, errors = run("import", there, "--out", "back.safetensors")
    assert (code, errors) == (0, "")
    assert f"10 images 3x16x16 of 10 classes, {to}" in text
    assert "fastdd evaluate back.safetensors --data-root DIR" in text
    assert torch.equal(SyntheticSet.load("back.safetensors").images, SyntheticSet.load(original).images)
    rows = [accuracy(run, path) for path in (original, "back.safetensors")]
    assert rows[0]["accuracy"] == rows[1]["accuracy"]
    assert rows[1]["method"] == "random"


@pytest.mark.parametrize("to", ["idc", "folder"])
def test_pixels_there_and_back(run, original, to):
    """Real images are of 8 bits."""
    assert run("export", original, "--to", to, "--out", "out")[0] == 0
    assert run("import", "out", "--out", "back.safetensors")[0] == 0
    before, after = SyntheticSet.load(original), SyntheticSet.load("back.safetensors")
    torch.testing.assert_close(after.images, before.images, atol=1e-6, rtol=0)


def test_a_run_is_exported_and_what_it_learned_is_told(run):
    digits = ("--dataset", "c-digits", "--width", 4)
    assert run("experts", *digits, "--num-experts", 1, "--epochs", 3, "--out", "experts", "--eval-every", 0)[0] == 0
    distill = ("--method", "mtt", "--experts", "experts", "--ipc", 1, "--iterations", 1, "--syn-steps", 2)
    limits = ("--max-start-epoch", 1, "--soft-labels", "teacher", "--out", "run")
    assert run("distill", *digits[:2], *distill, *limits)[0] == 0
    code, text, _ = run("export", "run", "--to", "mtt", "--out", "out")
    assert code == 0
    assert "the learned step size" in text
    one_line(run("export", "run", "--to", "dc", "--out", "no.pt"), 2, "no soft labels", "--hard-labels")
    assert run("export", "run", "--to", "dc", "--out", "hard.pt", "--hard-labels")[0] == 0
    code, text, _ = run("import", "out", "--out", "back.safetensors")
    assert code == 0
    assert "learned step size" in text
    assert "soft labels" in text
    before, after = SyntheticSet.load(Path("run") / "synthetic.safetensors"), SyntheticSet.load("back.safetensors")
    assert torch.equal(before.soft_labels, after.soft_labels)
    assert after.learning_rate == before.learning_rate
    assert after.metadata["run"] == before.metadata["run"]
    # Evaluated with what was learned.
    assert run("evaluate", "back.safetensors", "--nets", 1, "--epochs", 1, "--json", "e.json")[0] == 0
    assert report.read_json("e.json")["rows"][0]["learning_rate"] == before.learning_rate


def test_whitening_is_fitted_again(run, tmp_path):
    digits = load("c-digits")
    random_set(digits, 1, zca=Zca.fit(digits.train.images)).save(tmp_path / "white.safetensors")
    assert run("export", "white.safetensors", "--to", "mtt", "--out", "out")[0] == 0
    one_line(run("import", "out", "--out", "back.safetensors"), 2, "whitened: give --zca")
    code, text, _ = run("import", "out", "--out", "back.safetensors", "--zca", "--dataset", "c-digits")
    assert code == 0
    assert "whitened by ZCA" in text
    assert SyntheticSet.load("back.safetensors").zca.digest() == Zca.fit(digits.train.images).digest()


@pytest.fixture
def published(tmp_path):
    """The path of a result of FairDD's, with two experiments, by the class order of nobody."""
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    value = {
        "data": [[images, torch.tensor([1, 0, 0, 9])], [images + 1, torch.tensor([1, 0, 0, 9])]],
        "accs_all_exps": {"ConvNet": [np.float64(40), np.float64(50), np.float64(60), np.float64(70)]},
    }
    torch.save(value, tmp_path / "res_DM_Colored_MNIST_foreground_ConvNet_1ipc.pt")
    return "res_DM_Colored_MNIST_foreground_ConvNet_1ipc.pt"


def test_a_published_result(run, published):
    one_line(run("import", published, "--out", "a.safetensors"), 2, "looks like --dataset c-mnist-fg")
    out = ("--out", "a.safetensors")
    data = ("--dataset", "c-mnist-fg", "--bias-ratio", 0.95, "--debias", "fairdd")
    code, text, errors = run("import", published, *out, *data)
    assert (code, errors) == (0, "")
    assert "published accuracy on ConvNet: 65.00 %, of 2 networks" in text
    assert "note: experiment 1 of 0 to 1" in text
    made = SyntheticSet.load("a.safetensors")
    assert made.labels.tolist() == [1, 0, 0, 9]
    assert (made.metadata["debias"], made.metadata["dataset"]) == ("fairdd", "c-mnist-fg")
    assert made.metadata["provenance"]["parameters"] == {"bias_ratio": 0.95}
    one_line(run("import", published, *out, *data), 2, "a.safetensors exists", "--force")
    code, text, _ = run("import", published, *out, *data, "--experiment", 0, "--force")
    assert "accuracy on ConvNet: 45.00 %" in text
    code, text, _ = run("import", published, "--out", "b.safetensors", "--mean", ".5,.5,.5", "--std", "0.5,0.5,0.25")
    assert code == 0
    assert "fastdd evaluate b.safetensors --dataset NAME --data-root DIR" in text
    assert SyntheticSet.load("b.safetensors").metadata["std"] == [0.5, 0.5, 0.25]


def test_a_file_of_another_project_is_to_be_imported_first(run, published):
    one_line(run("evaluate", published), 2, f"fastdd import {published} --out FILE.safetensors")


class Code:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_bad_usage_of_import(run, published, tmp_path):
    out = ("--out", "a.safetensors")
    one_line(run("import", "nowhere.pt", *out), 2, "no file or folder nowhere.pt")
    one_line(run("import", published, "--out", "a.pt"), 2, "--out must end in .safetensors, not 'a.pt'")
    one_line(run("import", published, "--out", "no/a.safetensors"), 1, "folder of no/a.safetensors does not exist")
    one_line(run("import", published, *out, "--format", "zip"), 2, "unknown format 'zip'")
    one_line(run("import", published, *out, "--mean", "a,b", "--std", "1"), 2, "--mean must be numbers", "'a,b'")
    one_line(run("import", published, *out, "--mean", "1"), 2, "go together")
    one_line(run("import", published, *out, "--mean", ".5", "--std", ".5"), 2, "images have 3 channels")
    one_line(run("import", published, *out, "--dataset", "mnits"), 2, "did you mean mnist")
    one_line(run("import", published, *out, "--dataset", "c-mnist-fg", "--arch", "Net"), 2, "unknown network 'Net'")
    one_line(run("import", published, *out, "--dataset", "c-mnist-fg", "--decoder", "multi"), 2, "dc has no decoder")
    torch.save({"data": [], "accs_all_exps": Code()}, tmp_path / "code.pt")
    one_line(run("import", "code.pt", *out), 1, "code.pt would run code (os.system): refused")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Code(), protocol=2))
    one_line(run("import", "raw.pt", *out), 1, "raw.pt would run code (os.system): refused")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "cut.pt").write_bytes(Path(published).read_bytes()[:5000])
    one_line(run("import", "cut.pt", *out), 1, "cut.pt", "damaged")
    assert not (tmp_path / "a.safetensors").exists()


def test_bad_usage_of_export(run, original):
    one_line(run("export", original, "--to", "zip", "--out", "a"), 2, "unknown format 'zip'; one of: dcbench")
    one_line(run("export", "nowhere", "--to", "dc", "--out", "a"), 2, "no synthetic set at nowhere")
    one_line(run("export", original, "--to", "dcbench", "--out", "a"), 2, "DC-Bench has no method random")
    one_line(run("export", original, "--to", "dc", "--method", "dm", "--out", "a"), 2, "dc has no method")
    assert run("export", original, "--to", "dc", "--out", "a.pt")[0] == 0
    one_line(run("export", original, "--to", "dc", "--out", "a.pt"), 2, "a.pt exists", "--force")
    assert run("export", original, "--to", "dc", "--out", "a.pt", "--force")[0] == 0
