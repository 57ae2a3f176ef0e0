"""``fastdd train`` and ``fastdd recipes``."""

import json

import numpy as np
from PIL import Image

import fastdd
from fastdd.training import RECIPES

SMALL = ("--epochs", 1, "--width", 4, "--depth", 1)


def test_a_network_is_trained_tested_kept_and_continued(run, tmp_path):
    words = ("train", "--dataset", "c-digits", "--training", "lff", "--constant", "q=0.5", *SMALL, "--out", "net")
    code, text, errors = run(*words, "--json", "n.json")
    assert (code, errors) == (0, "")
    assert "epoch 1 of 1, learning rate 0.001" in text
    (row,) = json.loads((tmp_path / "n.json").read_text())["rows"]
    assert (row["training"], row["constants"], row["use"], row["tested_on"]) == ("lff", {"q": 0.5}, "none", "test")
    assert row == json.loads((tmp_path / "net" / "result.json").read_text())["rows"][0]
    why = "error: net already holds a network; continue it with --resume or choose another --out\n"
    assert run(*words) == (2, "", why)
    assert run(*words, "--resume")[0] == 0
    code, _, errors = run("train", "--config", "net/config.yaml", "--dataset", "c-digits", "--out", "again")
    assert (code, errors) == (0, "")
    ours, theirs = (fastdd.load_network(tmp_path / name).state_dict() for name in ("net", "again"))
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_fake_images_come_from_folders_stores_and_runs(run, tmp_path):
    data = fastdd.data.load("c-digits", bias_ratio=0.5)
    for label in range(10):
        for group in range(10):
            folder = tmp_path / "fakes" / data.class_names[label] / data.group_names[group]
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = np.full((16, 16, 3), 20 * number, np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    ffr = ("train", "--dataset", "c-digits", "--bias-ratio", 0.5, "--use", "ffr", "--scale", 0.1, *SMALL)
    code, text, errors = run(*ffr, "--fakes", "fakes")
    assert (code, errors) == (0, "")
    assert "fake images" in text
    assert run("data", "build", "c-digits", "--data-option", "balanced=true", "--out", "store")[0] == 0
    code, _, errors = run(*ffr, "--fakes", "store")
    assert code == 2
    assert "lower the scale, or give more" in errors
    assert run("distill", "--dataset", "c-digits", "--ipc", 1, "--iterations", 1, "--width", 4, "--out", "run")[0] == 0
    words = ("train", "--dataset", "c-digits", "--use", "ffr", "--training", "dfa", "--fakes", "run", *SMALL)
    code, text, errors = run(*words, "--stages", 1, "--out", "first")
    assert (code, errors) == (0, "")
    assert "10 fake images" in text
    fastdd.load_network(tmp_path / "first")  # a plain network, though the second stage's recipe is another
    assert run(*words, "--stages", 2, "--weights", "first", "--out", "second")[0] == 0
    fastdd.load_network(tmp_path / "second")


def test_bad_options_are_one_line(run):
    for words, why in (
        (("--constant", "q"), "--constant must be NAME=VALUE, not 'q'"),
        (("--optimiser", "adam", "--momentum", 0.5), "momentum 0.5 is of optimiser sgd, not adam"),
        (("--lr-grid", "a,b"), "--lr-grid must be numbers joined by commas, not 'a,b'"),
        (("--training", "x"), "unknown training 'x'; one of: erm"),
        (("--stages", 3), "stages must be both, 1 or 2, not '3'"),
        (("--weights", "none.pt"), "there is no file of weights none.pt"),
    ):
        code, text, errors = run("train", "--dataset", "c-digits", *SMALL, *words)
        assert (code, text, errors.count("\n")) == (2, "", 1)
        assert why in errors


def test_a_dry_run_checks_tells_and_writes_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr("fastdd.session.estimate._SECONDS", 0.01)
    words = ("train", "--dataset", "c-digits", "--bias-ratio", 0.5, "--data-option", "validation=0.2", *SMALL)
    words = (*words, "--training", "dfr")
    code, text, errors = run(*words, "--lr-grid", "0.1,0.01", "--out", "net", "--dry-run", "--json", "-")
    assert code == 0, errors
    meta = json.loads(text)["meta"]
    assert meta["plan"]["out"] == ["net/lr-0.1", "net/lr-0.01"]
    assert (meta["plan"]["lr_grid"], meta["plan"]["batch_train"]) == ([0.1, 0.01], 64)
    assert list(meta["estimate"]["seconds"]) == ["training on real images", "validation", "test"]
    assert "without the fit on held-out images" in errors
    assert "nothing was written" in errors
    assert not list(tmp_path.iterdir())
    assert run("estimate", *words, "--json", "e.json")[0] == 0
    estimated = json.loads((tmp_path / "e.json").read_text())["meta"]["estimate"]
    assert list(estimated["seconds"]) == ["start", "training on real images", "validation", "test"]
    (tmp_path / "file").touch()
    for more, why in (
        (("--lr-grid", "0.1,-1"), "lr must be above 0, not -1"),
        (("--depth", 6), "16x16 pixels are too small for a ConvNet of depth 6"),
        (("--out", "file/x"), "file is a file"),
        (("--log", "tensorboard"), "log tensorboard goes into the folder of the network: give out too"),
    ):
        code, text, errors = run(*words, *more, "--dry-run")
        assert (code in (1, 2), text, errors.count("\n")) == (True, "", 1), errors
        assert why in errors


def test_the_recipes_are_listed(run):
    code, text, _ = run("recipes")
    assert code == 0
    assert all(name in text for name in RECIPES)


def test_an_evaluation_by_a_recipe_and_its_estimate(run, tmp_path):
    words = ("random", "--dataset", "c-digits", "--ipc", 1, "--nets", 1, "--epochs", 1, "--training", "groupdro")
    assert run("evaluate", *words, "--constant", "eta=0.1", "--json", "e.json")[0] == 0
    (row,) = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert (row["training"], row["constants"]) == ("groupdro", {"eta": 0.1})
    assert run("estimate", "evaluate", *words)[0] == 0
