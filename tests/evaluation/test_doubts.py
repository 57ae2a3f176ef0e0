"""Figures that mean nothing are told: networks that diverged or learned nothing, cells of few test images."""

import dataclasses
import json
import math
import warnings

import pytest
import torch

import fastdd
from fastdd import report
from fastdd.data import Split, load
from fastdd.data.initial import random_set
from fastdd.evaluation import DoubtfulFigures, plan_evaluation
from fastdd.evaluation.doubts import doubt_of_network, doubt_of_test_set

SMALL = {"nets": 1, "arch": "ConvNet", "width": 8, "depth": 2, "dsa_strategy": "none"}
NAMES = tuple("abcdefghij")


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_a_network_that_diverges_is_told_wherever_its_figures_are(digits, rate):
    with pytest.warns(DoubtfulFigures, match=r"network 0 diverged \(loss .*\): lower --lr-net"):
        made = fastdd.evaluate(random_set(digits, 1), digits, epochs=3, learning_rate=rate, **SMALL)
    (line,) = made.warnings
    assert f"learning_rate {rate:g}" in line
    assert "warnings" not in made.summary()  # figures only: who loops over them meets no list
    row = report.result_row(made, dataset="c-digits", method="dm", debias="none", ipc=1)
    assert json.loads(json.dumps(row))["warnings"] == [line]
    assert report.notes([row]) == [line]
    assert report.notes([row, {"arch": "MLP"}]) == [f"dm, ConvNetD2W8: {line}"]


def test_nothing_is_told_of_networks_that_learn(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DoubtfulFigures)
        made = fastdd.evaluate(random_set(digits, 1), digits, epochs=1, **SMALL)
    assert made.warnings == ()
    assert "warnings" not in made.summary()


def test_a_set_that_has_seen_what_it_is_tested_on_is_told(digits):
    split, cpu = load("c-digits", val_split=0.2), torch.device("cpu")
    for data, seen in ((split, True), (digits, False)):
        lines = plan_evaluation(random_set(digits, 1), data, cpu).doubts
        assert [line.endswith("evaluate it with the val_split that it was made with") for line in lines] == [
            True
        ] * seen
    assert plan_evaluation(random_set(split, 1), split, cpu).doubts == ()
    with pytest.warns(DoubtfulFigures, match="made from another split, which may have them"):
        made = fastdd.evaluate(random_set(digits, 1), split, epochs=1, **SMALL)
    assert "another split" in made.warnings[0]


def test_a_network_that_only_guesses_is_told():
    same, guessing = torch.full((5,), 3), math.log(10)
    line = doubt_of_network(2, guessing, same, NAMES, 0.01)
    assert line.startswith("network 2 learned nothing (every prediction is d; loss 2.303")
    assert doubt_of_network(2, guessing, torch.arange(5), NAMES, 0.01) is None
    assert doubt_of_network(2, 0.1, same, NAMES, 0.01) is None
    assert doubt_of_network(0, 0.0, torch.zeros(5, dtype=torch.int64), ("a",), 0.01) is None
    for loss in (math.nan, math.inf, 3 * guessing):
        assert "network 0 diverged" in doubt_of_network(0, loss, torch.arange(5), NAMES, 0.01)


def test_cells_of_few_test_images_are_told_by_name(digits):
    images = torch.tensor([[12, 2], [0, 10], [9, 40]])
    assert doubt_of_test_set(images, "abc", ("dark", "light")) == (
        "WA and DEO rest on few test images: 2 of class a in group light; 2 of 5 cells have fewer than 10: "
        "test on more images"
    )
    assert doubt_of_test_set(torch.tensor([[12, 0], [10, 30]]), "ab", ("dark", "light")) is None
    assert doubt_of_test_set(torch.tensor([[3], [4]]), "ab", ("all",)) is None
    test = digits.test
    few = dataclasses.replace(digits, test=Split(test.images[:300], test.labels[:300], test.groups[:300]))
    with pytest.warns(DoubtfulFigures, match=r"WA and DEO rest on few test images: \d of class \d in group"):
        fastdd.evaluate(random_set(digits, 1), few, epochs=1, **SMALL)
