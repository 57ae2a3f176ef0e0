"""Weights that do nothing, or rest on one image, are told with what to change."""

import warnings

import numpy as np
import pytest

import fastdd
from fastdd.data import load
from fastdd.debias.density.kde import KdeSettings, diagnose, kde_weights, warn


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


@pytest.fixture(scope="module")
def unit_rows(digits):
    rows = np.random.default_rng(0).normal(size=(len(digits.train), 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"variance": 1e-12}, r"normalise the rows of the embedding, or raise variance \(1e-12\)"),
        ({"variance": 1e-12, "scope": "batch"}, r"raise variance \(1e-12\)"),
        ({"variance": 1e-12, "scope": "dataset"}, r"raise variance \(1e-12\)"),
        ({"variance": 1e9}, r"use another embedding, or lower variance \(1e\+09\)"),
        ({"clip": 1e-9}, r"raise clip \(1e-09\)"),
        ({"temperature": 1e9}, r"lower temperature \(1e\+09\)"),
    ],
)
def test_weights_that_are_alike_are_told_with_the_cure(digits, unit_rows, settings, cure):
    with pytest.warns(RuntimeWarning, match=rf"all alike \(ESS = n = 1297\): debiasing does nothing.*{cure}") as told:
        made = fastdd.kde_weights(digits, embedding=unit_rows, **settings)
    assert made.metadata["warnings"] == [str(told[0].message)]
    assert "\n" not in str(told[0].message)


def test_rows_that_are_not_normalised_are_told(digits):
    rows = np.random.default_rng(0).normal(size=(len(digits.train), 512)).astype(np.float32)
    with pytest.warns(RuntimeWarning, match="every image is alone: normalise the rows"):
        fastdd.kde_weights(digits, embedding=rows)


def test_nothing_is_told_of_weights_that_differ(digits, unit_rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = fastdd.kde_weights(digits, embedding=unit_rows)
    assert "warnings" not in made.metadata


def test_an_even_class_beside_others_is_no_news():
    weights, labels = np.array([1.0] * 6 + [1.0] * 11 + [2.0]), np.repeat([0, 1], [6, 12])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn(diagnose(weights, labels), ("cat", "dog")) == []


@pytest.mark.parametrize(
    ("few", "message"), [(1.0, r"all alike \(ESS"), (1e-9, r"amount to 1\.0 of its \d+ images \(10 classes have fewer")]
)
def test_weights_of_others_are_told_too(digits, few, message):
    weights = np.full(len(digits.train), few)
    weights[[np.flatnonzero(digits.train.labels == label)[0] for label in range(10)]] = 1
    with pytest.warns(RuntimeWarning, match=message):
        fastdd.Distillation(digits, debias="kde", weights=weights)


@pytest.mark.parametrize("variance", [1e-40, 1e40])
def test_a_variance_that_float32_has_no_square_for_is_refused_by_name(variance):
    with pytest.raises(ValueError, match=r"variance 1e[-+]40 is not one of 1e-30 to 1e\+30: scale the embeddings"):
        KdeSettings(variance=variance)


@pytest.mark.parametrize("variance", [1e-30, 1e30])
def test_a_variance_at_the_limit_gives_weights(variance):
    with pytest.warns(RuntimeWarning, match="all alike"):
        made = kde_weights(np.arange(12.0)[:, None], np.zeros(12, np.int64), variance=variance)
    assert np.isfinite(made.weights).all()
