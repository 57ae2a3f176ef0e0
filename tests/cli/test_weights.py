"""``fastdd weights``: the table, the file, the picture, and one line for every bad input."""

import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from fastdd import data as datasets
from fastdd import report
from fastdd.debias.density.kde import KdeWeights, load_weights

FEW = ["--dataset", "c-digits", "--bias-ratio", 0.95, "--steps", 2]


@pytest.fixture
def run(run):
    """Runs ``fastdd weights``; returns (exit code, stdout, stderr)."""
    return partial(run, "weights")


def test_file_table_picture_and_json(run, tmp_path):
    code, text, errors = run(*FEW, "--out", "w.safetensors", "--plot", "w.png", "--json", "w.json")
    assert (code, errors) == (0, "")
    assert all(word in text for word in ("ESS", "their weight,", "mean", "w.safetensors", "w.png"))
    data = datasets.load("c-digits", bias_ratio=0.95)
    weights = load_weights("w.safetensors", data)
    np.testing.assert_allclose(np.bincount(data.train.labels, weights), 1, atol=1e-5)
    content = report.read_json("w.json")
    assert [row["class"] for row in content["rows"]] == list(data.class_names)
    for label, row in enumerate(content["rows"]):
        own = data.train.labels == label
        w = weights[own].astype(np.float64)
        assert row["images"] == own.sum()
        assert row["ess"] == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-4)
        assert row["largest"] == pytest.approx(own.sum() * w.max(), rel=1e-4)
        assert row["conflict_mass"] == pytest.approx(w[data.train.groups[own] != label].sum(), rel=1e-4)
    assert content["meta"]["kde"]["clip"] == 3
    assert content["meta"]["embedding"]["steps"] == 2
    assert content["meta"]["dataset_digest"] == data.digest()
    with Image.open("w.png") as picture:
        assert picture.size[0] > 800
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_every_setting_reaches_the_weights(run):
    settings = {"variance": 0.2, "temperature": 0.7, "score": "minmax", "scope": "dataset", "seed": 4}
    settings["density"] = "exact"
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    assert run(*FEW, *options, "--clip", "none", "--encoder", "small")[0] == 0
    made = KdeWeights.load("runs/weights-c-digits.safetensors").metadata
    assert made["kde"] == {**settings, "clip": None, "batch": 256, "k": 256}
    assert made["embedding"]["encoder"] == "small"
    assert made["embedding"]["seed"] == 4


def test_embeddings_of_an_earlier_file_or_of_ones_own(run):
    assert run(*FEW, "--out", "a.safetensors")[0] == 0
    first = KdeWeights.load("a.safetensors")
    np.save("z.npy", first.embeddings)
    for option, path in (("--from", "a.safetensors"), ("--embedding", "z.npy")):
        assert run(*FEW[:4], option, path, "--temperature", 0.9, "--out", "b.safetensors")[0] == 0
        again = KdeWeights.load("b.safetensors")
        assert np.array_equal(again.embeddings, first.embeddings)
        assert again.weights.max() < first.weights.max()


def test_a_data_set_without_groups(run, tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 6), ("test", 1)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{i}.png")
    code, text, _ = run("--dataset", "folder", "--data-root", "images", "--steps", 1, "--plot", "w.png", "--json", "j")
    assert code == 0
    assert "cat" in text
    assert "conflicting" not in text
    assert report.read_json("j")["rows"][0]["conflict_mass"] is None


def test_warning_of_few_effective_images_is_one_line(run):
    code, _, errors = run(*FEW, "--clip", "none", "--score", "none", "--temperature", 0.1)
    assert code == 0
    assert errors.startswith("warning: the weights of class ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--dataset", "c-digit"], 2, "did you mean c-digits?"),
        ([], 2, "--dataset is missing"),
        ([*FEW, "--variance", 0], 2, "variance must be finite and above 0, not 0.0"),
        ([*FEW, "--temperature", -1], 2, "temperature must be finite and above 0, not -1.0"),
        ([*FEW, "--clip", 0], 2, "clip must be finite and above 0, not 0.0"),
        ([*FEW, "--clip", "much"], 2, "--clip must be a number above 0, or none, not 'much'"),
        ([*FEW, "--score", "max"], 2, "unknown score 'max'"),
        ([*FEW, "--scope", "all"], 2, "unknown scope 'all'"),
        ([*FEW, "--density", "tree"], 2, "unknown density 'tree'"),
        ([*FEW, "--density", "knn", "--k", 0], 2, "k must be at least 1"),
        ([*FEW, "--k", 9], 2, "--k 9 is of --density knn: give that too, or leave it out"),
        ([*FEW, "--normalise", "sum", "--temperature", 1], 2, "--temperature 1 is of --normalise softmax"),
        ([*FEW, "--embedding", "short.npy"], 2, "--steps is of an encoder, and short.npy is in place of one"),
        ([*FEW, "--out", "w.npy"], 2, "--out is a .safetensors file, such as w.safetensors, not w.npy"),
        ([*FEW, "--plot", "w.jpg"], 2, "the picture is a PNG: name it w.png, not w.jpg"),
        ([*FEW, "--encoder", "vgg"], 2, "unknown encoder 'vgg'; one of: resnet18, small"),
        (["--dataset", "c-digits", "--steps", 0], 2, "steps must be at least 1, not 0"),
        ([*FEW, "--device", "tpu"], 2, "unknown device 'tpu'"),
        ([*FEW[:4], "--embedding", "no.npy"], 2, "there is no file no.npy"),
        ([*FEW[:4], "--from", "no.safetensors"], 2, "there are no weights no.safetensors"),
        ([*FEW, "--from", "a", "--embedding", "b"], 2, "--embedding and --from both name embeddings"),
        ([*FEW[:4], "--embedding", "short.npy"], 2, "embeddings must be [1297, D]"),
        ([*FEW[:4], "--embedding", "nan.npy"], 2, "embeddings must be finite; row 5 is not"),
        ([*FEW[:4], "--from", "text.safetensors"], 1, "text.safetensors is damaged, or no safetensors file"),
        ([*FEW, "--out", "no/w.safetensors"], 1, "the folder of no/w.safetensors does not exist"),
        ([*FEW, "--plot", "no/w.png"], 1, "the folder of no/w.png does not exist"),
        ([*FEW, "--json", "no/w.json"], 1, "the folder of no/w.json does not exist"),
    ],
)
def test_bad_input_is_one_line(run, options, code, words):
    np.save("short.npy", np.zeros((3, 2), np.float32))
    bad = np.zeros((1297, 2), np.float32)
    bad[5, 0] = np.nan
    np.save("nan.npy", bad)
    with open("text.safetensors", "w") as file:
        file.write("hello")
    result = run(*options)
    assert result[0] == code, result
    assert result[2].startswith("error: ")
    assert result[2].count("\n") == 1
    assert words in result[2]


def test_without_faiss(run, monkeypatch):
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "faiss" else find_spec(name))
    monkeypatch.setitem(sys.modules, "faiss", None)
    code, _, errors = run(*FEW, "--density", "knn")
    assert code == 1
    assert "pip install 'fastdd[cpu]'" in errors
    assert errors.count("\n") == 1
