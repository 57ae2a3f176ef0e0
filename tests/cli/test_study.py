"""``fastdd study``: rows, a picture, and going on where it was stopped."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from fastdd import api, data
from fastdd.cli import study as command
from fastdd.cli.plan import time_text
from fastdd.session import Estimate
from fastdd.studies import KeptRows, density, kde, severity

# Tested on one colour: a tenth of the images.
QUICK = (
    "--dataset",
    "c-digits",
    "--data-option",
    "missing_groups=9",
    "--ipc",
    1,
    "--iterations",
    1,
    "--nets",
    1,
    "--epochs",
    1,
)


def rows(folder):
    return json.loads((folder / "study.json").read_text())["rows"]


def drawn(folder):
    with Image.open(folder / "study.png") as picture:
        return len(np.unique(np.asarray(picture))) > 50


def test_the_error_of_a_density_falls_as_theory_says(run, tmp_path):
    code, out, errors = run("study", "density", "--points", "200,5000", "--out", "d")
    assert (code, errors) == (0, "")
    assert out.endswith("rows in d/study.json, picture in d/study.png\n")
    assert drawn(tmp_path / "d")
    few, many = rows(tmp_path / "d")
    assert many["ise"] < few["ise"] / 3  # 25^(4/5) is 13
    errors = [
        density.squared_error(density.estimate(density.drawn(500, seed), density.bandwidth(500))) for seed in range(10)
    ]
    assert np.mean(errors) == pytest.approx(0.3329 * 500**-0.8, rel=0.35)
    assert pytest.approx(0.3329, abs=1e-4) == density._BEST
    # With all there is to know of it: the sum over points in fp64.
    sample = density.drawn(7, 0)
    at, width = density.places(), 0.4
    by_hand = sum(density.normal_density((at - x) / width) / width for x in sample) / 7
    assert torch.allclose(density.estimate(sample, width), by_hand, atol=1e-12)
    assert density.squared_error(density.normal_density(at)) == 0


def test_the_ablation_of_weights_goes_on_where_it_was_stopped(run, tmp_path, monkeypatch):
    words = ("study", "kde", *QUICK, "--variance", "0.1,1", "--temperature", "0.5", "--clip", "3", "--out", "k")
    made = []
    own, evaluate = kde.measure, command.evaluate_with_bar

    def stops(*arguments, **settings):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(arguments[2])
        return own(*arguments, **settings)

    monkeypatch.setattr(kde.api, "kde_weights", partial(api.kde_weights, steps=3))
    with monkeypatch.context() as patch:
        patch.setattr(kde, "measure", stops)
        assert run(*words)[0] == 130
    assert [row["debias"] for row in rows(tmp_path / "k")] == ["none", "fairdd", "kde"]
    before = rows(tmp_path / "k")
    monkeypatch.setattr(command, "evaluate_with_bar", lambda *a, **s: made.append("more") or evaluate(*a, **s))
    code, _, errors = run(*words)
    assert (code, errors) == (0, "")
    after = rows(tmp_path / "k")
    assert after[:3] == before
    assert [(row["knob"], row["value"]) for row in after[2:]] == [
        *(("variance", 0.1), ("variance", 1.0), ("temperature", 0.5), ("clip", 3.0))
    ]
    # The defaults are one distillation, whatever knob they are on the way of; what was there is not done again.
    assert made[3:] == ["more"] * 2
    assert {row["auc"] for row in after if row["value"] in (0.5, 3.0, 0.1)} == {after[2]["auc"]}
    assert 0 < after[2]["auc"] <= 1
    assert drawn(tmp_path / "k")
    code, _, errors = run(*words, "--seed", 1)
    assert (code, errors) == (2, "error: k/study.json is of a study with seed=0, not 1; choose another --out\n")
    code, _, errors = run("study", "density", "--out", "k")
    assert (code, errors) == (2, "error: k/study.json is of the study 'kde', not density; choose another --out\n")


def test_what_is_missing_is_estimated_and_nothing_made(run, tmp_path, monkeypatch):
    told = []

    def taking(data, *, debias, **given):
        told.append((debias, given["nets"], given.get("weights") is not None))
        return Estimate({"distillation": 100.0, "evaluation": 10.0}, 0, None, 0)

    monkeypatch.setattr(api, "estimate", taking)
    monkeypatch.setattr(api, "estimate_weights", lambda data, device: Estimate({"weights": 50.0}, 0, None, 0))
    words = ("study", "kde", *QUICK, "--variance", "0.1,1", "--temperature", "0.5", "--clip", "3", "--out", "k")
    code, out, errors = run(*words, "--estimate")
    assert (code, errors) == (0, "")
    # The defaults are one set, whatever knob they are on the way of.
    assert [line.split()[:2] for line in out.splitlines()[2:5]] == [["none", "1"], ["fairdd", "1"], ["kde", "2"]]
    assert out.endswith(f"weights, once: 50.0 s; together about {time_text(50 + 4 * 110)} here\n")
    assert told == [("none", 1, False), ("fairdd", 1, False), ("kde", 1, True)]
    assert not (tmp_path / "k").exists()
    with KeptRows(tmp_path / "k", "kde", {}) as kept:
        kept.get({"debias": "fairdd", "knob": None, "value": None}, dict)
        knobs = {"variance": (0.1, 1.0), "temperature": (0.5,), "clip": (3.0,)}
        assert kde.missing(kept, knobs) == {"none": 1, "kde": 2}
        digits = data.load("c-digits")
        kept.get({"severity": 4, "debias": "none", "dataset_digest": digits.digest()}, dict)
        left = severity.missing(lambda value: digits, kept, severities=(1, 4), modes=("none", "fairdd"))
        assert left == {"none": 1, "fairdd": 2}


def test_severity_is_told_by_images_and_accuracy(run, tmp_path, monkeypatch):
    """A data set with severities, which those that need no files are not: c-digits, more aligned the more severe."""
    digits = {ratio: data.load("c-digits", bias_ratio=ratio, missing_groups=9) for ratio in (0.5, 0.9)}

    def load(name, root, options):
        return digits[{1: 0.5, 4: 0.9}[options["severity"]]]

    monkeypatch.setattr(command, "load_dataset", load)
    words = ("study", "severity", *QUICK, "--severity", "1,4", "--debias", "none,fairdd", "--out", "s")
    code, _, errors = run(*words)
    assert (code, errors) == (0, "")
    assert [(row["severity"], row["debias"]) for row in rows(tmp_path / "s")] == [
        *((1, "none"), (1, "fairdd"), (4, "none"), (4, "fairdd"))
    ]
    assert drawn(tmp_path / "s")
    images = severity.examples(digits[0.9])
    assert images.shape == (10, 3, 16, 16)
    assert np.array_equal(images[0][1], np.zeros((16, 16)))  # the aligned colour of 0 is red


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("severity", "--dataset", "c-digits"), "c-digits has no severity: it can't be 1"),
        (
            ("severity", "--dataset", "c-digits", "--severity", "1,x"),
            "--severity must be whole numbers joined by commas",
        ),
        (("severity", "--dataset", "c-digits", "--debias", "fair"), "unknown debias mode 'fair'"),
        (("kde", "--dataset", "c-digits", "--clip", "-1"), "clip must be finite and above 0, not -1.0"),
        (("kde", "--dataset", "c-digits", "--bias-ratio", "1"), "has no bias-conflicting images: lower the bias ratio"),
        (("density", "--points", "1"), "a density needs at least 2 points, not 1"),
    ],
)
def test_what_can_not_be_is_told_before_the_work(run, words, why):
    code, _, errors = run("study", *words)
    assert code == 2
    assert why in errors
    assert errors.count("\n") == 1


def test_rows_in_memory_are_made_once():
    kept, made = KeptRows(None, "density", {}), []
    for _ in range(2):
        assert kept.get({"points": 3}, lambda: made.append(1) or {"ise": 0.5}) == {"points": 3, "ise": 0.5}
    assert made == [1]
