"""Scores of DD-Ranking: hand values, what chooses, and sets of every kind of labels."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import made, teacher

import fastdd
from fastdd import api, report
from fastdd.data.initial import random_set
from fastdd.evaluation import GroupCounts, Metrics
from fastdd.evaluation.ranking import RankingPlan
from fastdd.evaluation.scores import CELLS, as_fraction, scores, squashed

DATA = made("colour")
HOW = {"rounds": 2, "epochs": 3, "rates": (0.001, 0.1), "arch": "ConvNet", "width": 4, "depth": 2, "device": "cpu"}


def reached(*values: float) -> dict[str, float]:
    return dict(zip(CELLS, values, strict=True))


def test_scores_at_hand_values():
    found = scores(reached(0.8, 0.4, 0.5, 0.3, 0.35, 0.4))
    assert (found.hlr, found.ior) == (pytest.approx(0.4), pytest.approx(0.2))
    # a = 0.5 * 0.2 - 0.5 * 0.4 = -0.1, b = 0.5 * 0.2 - 0.5 * 0.05 = 0.075
    assert found.lrs == pytest.approx((math.exp(-0.1) - math.exp(-1)) / (math.e - math.exp(-1)))
    assert found.lrs == pytest.approx(0.2284, abs=1e-4)
    assert found.ars == pytest.approx(squashed(0.075))
    assert scores(reached(0.8, 0.4, 0.5, 0.3, 0.35, 0.4), lrs_weight=1).lrs == pytest.approx(squashed(0.2))
    with pytest.raises(ValueError, match="lrs_weight must be a share"):
        scores(reached(*[0.0] * 6), lrs_weight=2)


def test_percentages_saturate_as_in_the_public_package():
    # field notes: HLR 40 and IOR 20, in percent, print -0.156, and so does any gap of a few points.
    assert scores(reached(80, 40, 50, 30, 35, 40)).lrs == pytest.approx(-0.1565, abs=1e-4)
    assert scores(reached(80, 20, 30, 20, 35, 40)).lrs == pytest.approx(-0.1565, abs=1e-4)


def test_of_deo_less_is_better():
    def of(deo: float) -> float:
        return as_fraction(Metrics(accuracy=50, deo_m=deo, deo_a=0, wa=0, ba=0), "deo_m")

    # The whole set's DEO is 10 %, the set's 40 %, that of random images 60 %.
    found = scores(reached(of(10), of(40), of(40), of(60), of(40), of(40)))
    assert (found.hlr, found.ior) == (pytest.approx(0.3), pytest.approx(0.2))


@pytest.fixture(scope="module")
def ranked():
    return fastdd.rank("random", DATA, ipc=2, compat=True, **HOW)


def test_what_a_ranking_says(ranked):
    summary = ranked.summary()
    accuracy = [{cell: one[cell].last.counts.metrics().accuracy / 100 for cell in CELLS} for one in ranked.rounds]
    by_hand = [one["own"] - one["random"] for one in accuracy]
    assert summary["accuracy"]["ior"]["mean"] == pytest.approx(np.mean(by_hand))
    assert summary["accuracy"]["ior"]["std"] == pytest.approx(np.std(by_hand))
    assert summary["accuracy"]["ior"]["interval"] == pytest.approx(12.7062 * np.std(by_hand), rel=1e-4)  # t(0.975, 1)
    assert set(summary) == {"accuracy", "deo_m", "deo_a", "wa", "ba"}
    assert (ranked.labels, ranked.teacher, ranked.tested_on) == ("hard", "", "test")
    assert all(one["own"] is one["hard"] for one in ranked.rounds)
    # Nothing is trained on what was held out: 34 images, of every class and group one or more.
    assert ranked.held_out == 6
    compat = ranked.compat()
    for name, cells in {"ior": ("own", "random"), "hlr": ("real", "hard")}.items():
        gaps = [one[cells[0]].by_test - one[cells[1]].by_test for one in ranked.rounds]
        assert compat[name]["mean"] == pytest.approx(np.mean(gaps))
    for one in ranked.rounds:
        for outcome in one.values():
            assert outcome.by_test >= max(r.counts.metrics().accuracy for r in (outcome.last, outcome.best))
            assert outcome.last.epoch == 3
            assert outcome.last.rate in (0.001, 0.01, 0.1)


def test_test_images_choose_nothing(ranked):
    other = dataclasses.replace(DATA.test, labels=np.roll(DATA.test.labels, 3))
    again = fastdd.rank("random", dataclasses.replace(DATA, test=other), ipc=2, **HOW)
    assert again.compat() is None

    def chosen(ranking):
        return [
            [(r.rate, r.epoch) for outcome in one.values() for r in (outcome.last, outcome.best)]
            for one in ranking.rounds
        ]

    assert chosen(again) == chosen(ranked)


def test_the_same_images_as_both_have_no_improvement(monkeypatch):
    monkeypatch.setattr(RankingPlan, "random_images", lambda plan, number: plan.set)
    found = fastdd.rank("random", DATA, ipc=2, **HOW | {"rates": (0.01,)})
    for when in ("last", "best"):
        for of_rounds in found.scores(when).values():
            assert all(one.ior == 0 and one.ars == squashed(0) for one in of_rounds)


def test_soft_labels_are_learned_and_random_images_get_a_teachers(tmp_path):
    plain = random_set(DATA, 2, 5)
    soft = torch.full((6, 3), 0.1).scatter_(1, (plain.labels[:, None] + 1) % 3, 0.8)  # of another class than the hard
    synthetic = dataclasses.replace(plain, soft_labels=soft, learning_rate=0.05)
    plan = api.planned_ranking(
        synthetic,
        DATA,
        **{"ipc": None, "whole_epochs": 1, "dsa_strategy": None, "learning_rate": None, "teacher": None},
        **{"labels": None, "compat": False, "seed": 0, **HOW, "rounds": 1},
    )
    assert (plan.labels, plan.own_rates, plan.whole_epochs) == ("soft", (0.05,), 1)
    found = plan.rank()
    assert found.teacher == "the round's network on the whole training split"
    assert set(found.rounds[0]) == set(CELLS)
    assert found.rounds[0]["own"].last.rate == 0.05
    row = report.ranking_row(found, dataset="made", method="random", debias="none", ipc=2)
    report.write_json(tmp_path / "r.json", report.document([row]))
    with pytest.raises(ValueError, match="are hard: leave it out"):
        fastdd.rank(plain, DATA, teacher="x", **HOW)


def test_decoupled_sets_are_labelled_view_by_view(tmp_path):
    net = teacher("colour").net
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "t.safetensors")
    own = {"path": str(tmp_path / "t.safetensors"), "digest": "", "arch": "ConvNetBN", "width": 4, "depth": 2}
    plain = random_set(DATA, 2, 5)
    synthetic = dataclasses.replace(plain, metadata=plain.metadata | {"method": "rded", "teacher": own})
    ticks = []
    found = fastdd.rank(
        synthetic,
        DATA,
        teacher=own["path"],
        progress=lambda *tick: ticks.append(tick[:2]),
        **HOW | {"rounds": 1, "arch": None, "width": None, "depth": None},
    )
    assert found.labels == "teacher"
    assert found.rounds[0]["own"].last.rate == found.rounds[0]["random"].last.rate == 1e-3
    assert ticks[-1][0] == ticks[-1][1] == 1 + 2 + 1 + 2 + 1 + 2
    with_network = api.planned_ranking(  # networks of another kind than the teacher's
        synthetic,
        DATA,
        **{"ipc": None, "whole_epochs": 1, "dsa_strategy": None, "learning_rate": None, "teacher": own["path"]},
        **{"labels": None, "compat": False, "seed": 0, **HOW, "arch": "MLP", "width": None, "depth": None},
    )
    assert (with_network.labels, with_network.of_set.arch) == ("teacher", "MLP")
    assert with_network.teacher.network["arch"] == "ConvNetBN"


def test_several_sets_have_an_interval_over_sets(ranked):
    rows = [report.ranking_row(ranked, dataset="made", method="m", debias="none", ipc=2) for _ in range(2)]
    rows[1]["last"]["accuracy"]["ior"] = rows[1]["last"]["accuracy"]["ior"] | {"mean": 1.0}
    over = report.over_sets(rows)
    first = rows[0]["last"]["accuracy"]["ior"]["mean"]
    assert over["distillations"] == 2
    assert over["last"]["accuracy"]["ior"]["mean"] == pytest.approx((1 + first) / 2)
    assert over["last"]["accuracy"]["ior"]["interval"] == pytest.approx(12.7062 * abs(1 - first) / 2, rel=1e-4)


def test_without_groups_there_is_no_deo():
    counts = GroupCounts(torch.tensor([[3], [1]]), torch.tensor([[4], [4]]))
    assert math.isnan(as_fraction(counts.metrics(), "deo_m"))
    assert as_fraction(counts.metrics(), "wa") == 0.25


def test_refused():
    with pytest.raises(ValueError, match="rates must be positive, not 0"):
        fastdd.rank("random", DATA, ipc=1, **HOW | {"rates": (0,)})
    with pytest.raises(ValueError, match="hard or teacher"):
        fastdd.rank("random", DATA, ipc=1, labels="x.safetensors", **HOW)
    with pytest.raises(ValueError, match="need an IPC"):
        fastdd.rank("random", DATA, **HOW)
    held = dataclasses.replace(DATA, provenance={"parameters": {"val_split": 0.1}})
    with pytest.raises(ValueError, match="leave val_split out"):
        fastdd.rank("random", held, ipc=1, **HOW)
