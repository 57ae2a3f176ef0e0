"""Rows of several distillations: one row, their kinds, paired differences."""

import math
from html import unescape
from pathlib import Path

import pytest
import torch

from fastdd import report
from fastdd.evaluation import Evaluation, GroupCounts, Protocol
from fastdd.report import course, repeats
from fastdd.report.labels import labels
from fastdd.report.page import page
from fastdd.report.record import Record


def row(seed, right, *, debias="none", epochs=7, rate=0.01):
    counts = tuple(GroupCounts(torch.tensor([[right, right + i]]), torch.tensor([[100, 100]])) for i in (0, 2))
    evaluation = Evaluation("ConvNet", counts, 1.5, Protocol(epochs=epochs, learning_rate=rate), seed)
    return report.result_row(evaluation, dataset="c-digits", method="dm", debias=debias, ipc=10)


def test_one_row_of_several():
    whole = repeats.over_distillations({0: row(0, 60), 3: row(3, 70)})
    assert (whole["nets"], whole["distillations"], whole["seeds"], whole["seconds"]) == (4, 2, [0, 3], 3.0)
    assert "seed" not in whole
    assert whole["accuracy"]["mean"] == pytest.approx(65.5)
    assert whole["accuracy"]["interval"] == pytest.approx(12.7062 * 5, rel=1e-5)
    assert whole["group_accuracy"] == [[65.0, 66.0]]
    report.document([whole])


def test_rows_of_other_kinds_are_no_repeats():
    with pytest.raises(ValueError, match="results of different epochs are no repeats: 7 and 9"):
        repeats.over_distillations({0: row(0, 60), 1: row(1, 60, epochs=9)})
    # A rate that every set has learned for itself is of no kind.
    assert repeats.over_distillations({0: row(0, 60), 1: row(1, 60, rate=0.02)})["learning_rate"] is None


def test_kinds_take_the_last_row_of_a_seed():
    rows = {0: [row(0, 50), row(0, 60), row(0, 1, epochs=9)], 1: [row(1, 70), row(1, 2, epochs=9)]}
    found = repeats.kinds(rows)
    assert [[one["group_accuracy"][0][0] for one in kind.values()] for kind in found] == [[60, 70], [1, 2]]


def test_rates_that_were_given_are_of_different_kinds_and_own_ones_are_not():
    def accuracies(rows):
        return [{seed: one["group_accuracy"][0][0] for seed, one in kind.items()} for kind in repeats.kinds(rows)]

    # One run was tested with another rate, later, and both with a third.
    given = {0: [row(0, 50), row(0, 90, rate=0.1), row(0, 20, rate=0.2)], 1: [row(1, 60), row(1, 30, rate=0.2)]}
    assert accuracies(given) == [{0: 50, 1: 60}, {0: 90}, {0: 20, 1: 30}]
    learned = {seed: [row(seed, 50 + seed, rate=0.01 + seed)] for seed in (0, 1, 2)}
    assert accuracies(learned) == [{0: 50, 1: 51, 2: 52}]
    taught = {seed: [row(seed, 50 + seed) | {"teacher_digest": str(seed)}] for seed in (0, 1)}
    assert accuracies(taught) == [{0: 50, 1: 51}]
    (kind,) = repeats.kinds(taught)
    whole = repeats.over_distillations(kind)
    assert (whole["accuracy"]["mean"], whole["teacher_digest"]) == (pytest.approx(51), None)
    # A pair is of one teacher.
    other = {seed: one | {"debias": "fairdd"} for seed, one in kind.items()}
    assert repeats.repeats_lines([kind, other], ["accuracy"])[-1][0] == "dm+fairdd less dm"
    other = {seed: one | {"teacher_digest": "x"} for seed, one in other.items()}
    assert not [line for line in repeats.repeats_lines([kind, other], ["accuracy"]) if " less " in line[0]]


def test_paired_differences_are_at_equal_seeds():
    ours = {seed: row(seed, right, debias="fairdd") for seed, right in ((0, 72), (1, 84), (5, 0))}
    others = {seed: row(seed, right) for seed, right in ((1, 80), (0, 70), (7, 99))}
    less = repeats.paired_difference(ours, others)
    assert less["accuracy"]["mean"] == pytest.approx(3)
    assert less["accuracy"]["interval"] == pytest.approx(12.7062, rel=1e-5)
    lines = repeats.repeats_lines([others, ours], ["accuracy"])
    assert lines[-1] == ["dm+fairdd less dm", f"2 pairs of {ours[0]['nets']} ConvNet", "+3.0 ± 12.7"]
    with pytest.raises(ValueError, match="no equal seeds: 0 and 1"):
        repeats.paired_difference({0: ours[0]}, {1: others[1]})


def test_the_bars_of_repeats_are_a_kind_a_bar_with_networks_where_sets_have_one_name():
    plain = {seed: row(seed, 70 + seed) for seed in (0, 1)}
    fair = {seed: row(seed, 80 + seed, debias="fairdd") for seed in (0, 1)}
    other = {seed: {**row(seed, 75 + seed), "arch": "LeNet"} for seed in (0, 1)}
    picture = repeats.repeats_bars([plain, fair])
    assert ">dm<" in picture
    assert ">dm+fairdd<" in picture
    nets = plain[0]["nets"]
    picture = repeats.repeats_bars([plain, fair, other])
    for name in (f"dm, {nets} ConvNet", f"dm, {nets} LeNet", "dm+fairdd"):
        assert f">{name}<" in picture


def on_the_way(seed, debias, accuracies, nets=2):
    """A run that was evaluated after 0, 10, ... iterations."""
    rows = [
        {"iteration": 10 * number, "arch": "ConvNet", "nets": nets, "epochs": 5, "tested_on": "test"}
        | {name: {"mean": float(right), "std": 1.0} for name in ("accuracy", "deo_m", "deo_a")}
        for number, right in enumerate(accuracies)
    ]
    about = {"method": "dm", "debias": debias, "dataset": "c-digits", "ipc": 1, "seed": seed}
    return Record(Path("run"), None, about, 0, 1, [], rows, [], [], {})


def test_repeats_are_one_curve_of_means_with_the_interval_over_distillations():
    records = [on_the_way(0, "none", [10, 20, 40]), on_the_way(7, "none", [12, 20]), on_the_way(0, "fairdd", [30])]
    assert labels(records) == ["dm, seed 0", "dm, seed 7", "dm+fairdd"]
    assert course.repeated(records) == [[0, 1], [2]]
    # Student's t of one degree of freedom is 12.706; the mean of 10 and 12 has a standard error of 1. After 20
    # iterations one of the two runs was evaluated.
    first, second = course.points(records[:2], "accuracy")
    assert first == (0, 11, pytest.approx(12.7062, rel=1e-5))
    assert second == (10, 20, 0)
    assert course.points(records[2:], "accuracy") == [(0, 30, 1)]
    found = course.course(records)
    assert (found["repeats"], found["single"]) == (True, True)
    assert "seed 0" not in found["charts"][0][1]
    text = page(records)
    assert "of repeats the mean and its 95 % interval (Student's t) over distillations, as bars" in unescape(text)
    assert "mean and one standard deviation over networks, as bands" in text


def test_curves_of_repeats_break_where_other_networks_were_trained():
    records = [on_the_way(seed, "none", [10, 20]) for seed in (0, 1)]
    for record in records:
        record.evaluations[1]["epochs"] = 6
    assert [math.isnan(mean) for _, mean, _ in course.points(records, "accuracy")] == [False, True, False]
