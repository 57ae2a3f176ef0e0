"""Evaluations on the way: they change nothing, are those of ``evaluate``, and none is lost or made up by a kill."""

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from forked import Script

import fastdd
from fastdd import session
from fastdd.api import distillation
from fastdd.data.initial import random_set
from fastdd.evaluation import EvaluationPlan
from fastdd.methods import configure
from fastdd.session import Curve, Report

SMALL = {"ipc": 1, "iterations": 6, "batch_real": 8, "width": 4, "depth": 1, "device": "cpu"}
LOOPS = {"ipc": 1, "iterations": 3, "outer_loop": 2, "inner_loop": 1, "batch_real": 8, "width": 4, "depth": 1}
QUICK = {"eval_nets": 1, "eval_epochs": 1}


@pytest.fixture(scope="module")
def digits():
    """Tested on 60 images: what is asked is which figures there are, not how good."""
    data = fastdd.data.load("c-digits")
    return replace(data, test=data.test.take(np.arange(60)))


@pytest.fixture(scope="module")
def experts(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("experts") / "E"
    return fastdd.train_experts(digits, out=out, num_experts=1, epochs=2, width=4, depth=1, zca=True, device="cpu")


def rows(run):
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def iterations(run):
    return [row["iteration"] for row in rows(run)]


MTT = {"method": "mtt", "ipc": 1, "iterations": 3, "syn_steps": 2, "expert_epochs": 1, "max_start_epoch": 1}
METHODS = {
    "dm": SMALL,
    "dc": {"method": "dc", "debias": "fairdd", **LOOPS},
    "dsa": {"method": "dsa", **LOOPS},
    "mtt": {**MTT, "soft_labels": "learned", "lr_label": 1.0},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_set_does_not_depend_on_evaluations_and_they_are_those_of_evaluate(method, digits, experts, tmp_path):
    settings = {"seed": 3, **METHODS[method], **({"experts": experts} if method == "mtt" else {})}
    told = []
    plain = fastdd.distill(digits, out=tmp_path / "plain", **settings)
    made = fastdd.distill(
        digits, out=tmp_path / "way", eval_every=2, eval_nets=2, eval_epochs=1, eval_progress=told.append, **settings
    )
    names = "plain", "way"
    assert len({(tmp_path / name / "synthetic.safetensors").read_bytes() for name in names}) == 1
    assert len({(tmp_path / name / "metrics.jsonl").read_bytes() for name in names}) == 1
    assert plain.learning_rate == made.learning_rate
    assert not (tmp_path / "plain" / "evaluations.jsonl").exists()
    assert iterations(tmp_path / "way") == ([0, 2, 4, 6] if method == "dm" else [0, 2, 3])
    assert rows(tmp_path / "way") == told

    start = random_set(digits, 1, 3, made.zca)
    if method != "mtt":
        start = replace(start, metadata={**start.metadata, "run": made.metadata["run"]})
        first = fastdd.evaluate(start, digits, nets=2, epochs=1, seed=3)
        assert told[0]["accuracy"] == first.summary()["accuracy"]
    last = fastdd.evaluate(tmp_path / "way", digits, nets=2, epochs=1, seed=3)
    found = told[-1]
    assert {name: found[name] for name in last.summary()} == last.summary()
    assert found["group_accuracy"] == last.group_accuracy()
    assert (found["arch"], found["nets"], found["epochs"]) == (last.arch, 2, 1)
    assert found["learning_rate"] == last.protocol.learning_rate
    assert found["tested_on"] == "test"


def test_in_memory_the_figures_are_told(digits):
    told = []
    made = fastdd.distill(digits, eval_every=4, **QUICK, eval_progress=told.append, **SMALL)
    assert [row["iteration"] for row in told] == [0, 4, 6]
    assert torch.equal(made.images, fastdd.distill(digits, **SMALL).images)


def test_validation_images_are_what_is_tested_on_where_they_are_held_out(digits, tmp_path):
    held = fastdd.data.load("c-digits", val_split=0.2)
    made = fastdd.distill(held, out=tmp_path / "run", eval_every=6, **QUICK, **SMALL)
    last = rows(tmp_path / "run")[-1]
    assert last["tested_on"] == "validation"
    on_validation, on_test = (
        fastdd.evaluate(made, data, nets=1, epochs=1).summary()["accuracy"] for data in (held, digits)
    )
    assert last["accuracy"] == on_validation != on_test


def test_a_resumed_run_may_be_evaluated_otherwise_and_loses_no_figure(digits, tmp_path):
    run, shorter = tmp_path / "run", {**SMALL, "iterations": 2}
    fastdd.distill(digits, out=run, **shorter)
    assert not (run / "evaluations.jsonl").exists()
    # Finished already: its end is evaluated.
    fastdd.distill(digits, out=run, resume=True, eval_every=1, **QUICK, **shorter)
    fastdd.distill(digits, out=run, resume=True, eval_every=2, eval_nets=2, eval_epochs=1, **{**SMALL, "iterations": 4})
    fastdd.distill(digits, out=run, resume=True, **{**SMALL, "iterations": 5})
    made = fastdd.distill(digits, out=run, resume=True, eval_every=100, **QUICK, **SMALL)
    assert [(row["iteration"], row["nets"]) for row in rows(run)] == [(2, 1), (4, 2), (6, 1)]
    assert torch.equal(made.images, fastdd.distill(digits, **SMALL).images)


class Trouble(Exception):
    pass


@pytest.fixture
def uninterrupted(digits, tmp_path):
    fastdd.distill(digits, out=tmp_path / "whole", eval_every=2, **QUICK, **SMALL)
    return tmp_path / "whole"


@pytest.mark.parametrize("at", [1, 2, 4])
def test_what_ends_an_evaluation_costs_that_evaluation_only(uninterrupted, digits, tmp_path, monkeypatch, at):
    """The first, one on the way, and the last, when the set is there already."""
    calls, own = [], EvaluationPlan.evaluate

    def evaluate(*arguments, **settings):
        calls.append(arguments)
        if len(calls) == at:
            raise Trouble
        return own(*arguments, **settings)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationPlan, "evaluate", evaluate)
        with pytest.raises(Trouble):
            fastdd.distill(digits, out=run, eval_every=2, **QUICK, **SMALL)
    assert (run / "evaluations.jsonl").exists() == (at > 1)
    assert (run / "synthetic.safetensors").exists() == (at == 4)
    if at > 1:
        assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 2 * (at - 1)
    fastdd.distill(digits, out=run, resume=True, eval_every=2, **QUICK, **SMALL)
    for name in ("evaluations.jsonl", "metrics.jsonl", "synthetic.safetensors"):
        assert (run / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_figures_of_steps_that_are_done_again_are_dropped(uninterrupted, digits):
    file = uninterrupted / "evaluations.jsonl"
    before = file.read_bytes()
    lines = before.splitlines(keepends=True)
    file.write_bytes(b"".join(lines).replace(b'"iteration": 6', b'"iteration": 6, "stale": 1') + lines[-1][:30])
    (uninterrupted / "checkpoint.pt").write_bytes(b"damaged")  # the one before it is of iteration 4
    with pytest.warns(RuntimeWarning, match="is damaged"):
        fastdd.distill(digits, out=uninterrupted, resume=True, eval_every=2, **QUICK, **SMALL)
    assert file.read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_does_not_wait_for_an_evaluation(digits, tmp_path, number):
    config = configure(dataset="c-digits", ipc=1, iterations=4, batch_real=8, width=4, depth=1)
    seen = []

    def evaluate(made):
        seen.append(made)
        if len(seen) == 2:
            os.kill(os.getpid(), number)
            time.sleep(60)
        return {"figure": made.images.sum().item()}

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="stopped after 2 of 4 steps, in the evaluation there"):
        session.run(config, digits, out=tmp_path, callbacks=[Curve(2, evaluate)])
    assert time.monotonic() - began < 30
    session.run(config, digits, out=tmp_path, resume=True, callbacks=[Curve(2, evaluate)])
    assert iterations(tmp_path) == [0, 2, 4]


def test_time_of_evaluations_is_no_time_of_steps(digits):
    config = configure(dataset="c-digits", ipc=1, iterations=2, batch_real=8, width=4, depth=1)
    seen = []
    curve = Curve(1, lambda made: time.sleep(0.5) or {})
    session.run(config, digits, callbacks=[Report(seen.append), curve])
    assert [now.step for now in seen if now.evaluating] == [0, 1, 2]
    assert seen[-1].seconds < 0.75


SCRIPT = """
import sys
from dataclasses import replace
import numpy as np
from fastdd import api, data
from fastdd.evaluation import EvaluationPlan
own = EvaluationPlan.evaluate
def evaluate(*arguments, **settings):
    print("evaluation", flush=True)
    return own(*arguments, **settings)
EvaluationPlan.evaluate = evaluate
digits = data.load("c-digits")
digits = replace(digits, test=digits.test.take(np.arange(60)))
api.distill(digits, out=sys.argv[1], resume=True, ipc=2, iterations=40, width=4, batch_real=8, device="cpu",
            checkpoint_seconds=0.05, eval_every=5, eval_nets=1, eval_epochs=3)
"""


def test_kills_change_no_figure(digits, tmp_path):
    for evaluations, delay in ((3, 0.0), (2, 0.05)):  # within an evaluation, and soon after one began
        script = Script(SCRIPT, tmp_path / "killed")
        script.wait_for_lines(evaluations)
        time.sleep(delay)
        script.kill()
    assert len(iterations(tmp_path / "killed")) < 9
    last = Script(SCRIPT, tmp_path / "killed")
    last.succeed()
    assert not last.errors
    settings = {"ipc": 2, "iterations": 40, "width": 4, "batch_real": 8, "device": "cpu"}
    fastdd.distill(digits, out=tmp_path / "whole", eval_every=5, eval_nets=1, eval_epochs=3, **settings)
    assert iterations(tmp_path / "whole") == list(range(0, 41, 5))
    for name in ("evaluations.jsonl", "synthetic.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eval_every": 0}, "eval_every must be at least 1, not 0"),
        ({"eval_every": 5, "eval_nets": 0}, "eval_nets must be at least 1, not 0"),
        ({"eval_every": 5, "eval_epochs": -1}, "eval_epochs must be at least 1, not -1"),
        ({"eval_nets": 3}, "eval_nets 3 is of evaluations on the way: give eval_every too"),
        ({"eval_epochs": 3}, "eval_epochs 3 is of evaluations on the way: give eval_every too"),
    ],
)
def test_what_can_not_be_is_told_before_the_work(digits, tmp_path, settings, words):
    for call in (fastdd.distill, fastdd.estimate):
        with pytest.raises(ValueError, match=f"^{words}$"):
            call(digits, **({"out": tmp_path / "run"} if call is fastdd.distill else {}), **settings, **SMALL)
    assert not (tmp_path / "run").exists()


def test_an_estimate_has_every_evaluation_on_the_way(digits, monkeypatch):
    asked = []
    monkeypatch.setattr("fastdd.session.estimate._SECONDS", 0.05)
    monkeypatch.setattr(distillation, "evaluation_seconds", lambda plan: asked.append(plan.protocol.epochs) or 2.0)
    taken = fastdd.estimate(digits, eval_every=4, eval_epochs=7, **SMALL)
    assert taken.seconds["evaluations on the way"] == 3 * 2.0  # of iterations 0, 4 and 6
    assert asked == [7]
