"""Rows of several distillations: one row, their kinds, paired differences."""

import pytest
import torch

from fastdd import report
from fastdd.evaluation import Evaluation, GroupCounts, Protocol
from fastdd.report import repeats


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


def test_paired_differences_are_at_equal_seeds():
    ours = {seed: row(seed, right, debias="fairdd") for seed, right in ((0, 72), (1, 84), (5, 0))}
    others = {seed: row(seed, right) for seed, right in ((1, 80), (0, 70), (7, 99))}
    less = repeats.paired_difference(ours, others)
    assert less["accuracy"]["mean"] == pytest.approx(3)
    assert less["accuracy"]["interval"] == pytest.approx(12.7062, rel=1e-5)
    lines = repeats.repeats_lines([others, ours], ["accuracy"])
    assert lines[-1] == ["dm+fairdd less dm", "2 pairs", "+3.0 ± 12.7"]
    with pytest.raises(ValueError, match="no equal seeds: 0 and 1"):
        repeats.paired_difference({0: ours[0]}, {1: others[1]})
