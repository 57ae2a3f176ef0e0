"""A speed-up stands only beside a result that matches; what fails is reported, not hidden."""

import copy
import math

import pytest
import torch

from fastdd import ops
from fastdd.bench import cases
from fastdd.bench.framework import runner, schema
from fastdd.bench.framework.case import ALLOWED, FLOOR, Case
from fastdd.bench.framework.upstream import Upstream

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("once")


class Square(Case):
    """x^2, in float32 and by a longer way."""

    name, about, variant = "square", "for tests", {}

    def __init__(self, ours=lambda x: x * x):
        self.ours = ours

    def inputs(self, seed, device, quick):
        return torch.linspace(0.5, 1.5, 64, device=device)

    def shape(self, inputs):
        return {"x": [64]}

    def fastdd(self, inputs):
        return self.ours(inputs)

    def plain(self, inputs):
        return inputs.square()

    def loop(self, inputs):
        return torch.stack([x * x for x in inputs])

    def truth(self, inputs):
        return inputs.double() ** 2

    def bytes(self, inputs):
        return 2 * inputs.nbytes

    def flops(self, inputs):
        return inputs.numel()


def measure(*measured, **settings):
    settings = {"reps": 3, "budget": 0.0, "quick": True} | settings
    (*_, document) = runner.run(measured, CPU, **settings)
    schema.validate(schema.without_nan(document), "document")
    return document, {row["backend"]: row for row in document["rows"]}


def test_a_right_result_has_speedups_over_the_baselines_above_it():
    document, rows = measure(Square())
    assert list(rows) == ["reference-loop", "torch", "fastdd"]
    assert runner.failed(document) == []
    for row in rows.values():
        assert row["match"]
        assert row["q20_us"] <= row["median_us"] <= row["q80_us"]
        assert row["reps"] == 3
        assert (row["bytes"], row["flops"], row["dtype"], row["device"]) == (512, 64, "float32", "cpu")
        # Plain PyTorch rounds once: at most 2^-24 of an element.
        assert FLOOR <= row["err_budget"] <= FLOOR + ALLOWED[row["backend"]] * 2**-24
    ratio = rows["reference-loop"]["median_us"] / rows["fastdd"]["median_us"]
    assert rows["fastdd"]["speedup"]["reference-loop"] == pytest.approx(ratio)
    assert rows["fastdd"]["speedup"]["torch"] > 0
    assert [rows["torch"]["speedup"][name] is None for name in ("reference-loop", "torch", "upstream")] == [
        False,
        True,
        True,
    ]
    assert set(rows["reference-loop"]["speedup"].values()) == {None}


@pytest.mark.parametrize("wrong", [1.00001, math.nan, math.inf])
def test_a_wrong_result_gets_no_speedup(wrong):
    document, rows = measure(Square(lambda x: x * x * wrong))
    assert not rows["fastdd"]["match"]
    assert set(rows["fastdd"]["speedup"].values()) == {None}
    assert rows["fastdd"]["median_us"] > 0
    assert rows["torch"]["speedup"]["reference-loop"] > 0
    (problem,) = runner.failed(document)
    assert problem.startswith("square {'x': [64]}: fastdd is off by")


def test_a_result_of_another_shape_is_an_error():
    document, rows = measure(Square(lambda x: (x * x)[None]))
    assert not rows["fastdd"]["match"]
    assert "results have shapes [[1, 64]], the truth has [[64]]" in document["meta"]["errors"][0]["error"]


def test_one_wrong_element_is_found():
    def ours(x):
        y = x * x
        y[17] += 1e-5
        return y

    assert not measure(Square(ours))[1]["fastdd"]["match"]


def test_no_speedup_over_a_baseline_that_does_not_match():
    class Wrong(Square):
        def loop(self, inputs):
            return inputs

    rows = measure(Wrong())[1]
    assert not rows["reference-loop"]["match"]
    assert rows["fastdd"]["match"]
    assert rows["fastdd"]["speedup"]["reference-loop"] is None
    assert rows["fastdd"]["speedup"]["torch"] > 0


def test_a_backend_that_raises_is_reported_and_the_others_are_measured():
    def broken(x):
        raise RuntimeError("no kernel\nfor this")

    document, rows = measure(Square(broken))
    assert rows["fastdd"]["match"] is False
    assert (rows["fastdd"]["median_us"], rows["fastdd"]["reps"]) == (None, 0)
    assert rows["torch"]["match"]
    assert document["meta"]["errors"] == [
        {"case": "square", "backend": "fastdd", "error": "RuntimeError: no kernel for this"}
    ]
    assert runner.failed(document) == ["square fastdd: RuntimeError: no kernel for this"]


def test_a_backend_that_fails_while_it_is_timed_does_not_match():
    calls = []

    def tired(x):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("enough")
        return x * x

    document, rows = measure(Square(tired))
    assert (rows["fastdd"]["match"], rows["fastdd"]["median_us"]) == (False, None)
    assert len(document["meta"]["errors"]) == 1


def test_a_case_without_inputs_is_one_error():
    class Broken(Square):
        def __init__(self):
            super().__init__()
            self.variant = {"n": 3}

        def inputs(self, seed, device, quick):
            raise ValueError("nothing there")

    document, rows = measure(Broken())
    assert document["meta"]["errors"] == [
        {"case": "square n=3", "backend": "all", "error": "ValueError: nothing there"}
    ]
    assert not any(row["match"] for row in rows.values())


def test_slow_backends_are_called_once():
    calls = []

    class Slow(Square):
        once = frozenset({"reference-loop"})

        def loop(self, inputs):
            calls.append(1)
            return super().loop(inputs)

    rows = measure(Slow())[1]
    assert len(calls) == 1
    assert (rows["reference-loop"]["reps"], rows["torch"]["reps"]) == (1, 3)
    assert rows["fastdd"]["speedup"]["reference-loop"] > 0


def test_a_wrong_kernel_in_a_real_case_is_caught(monkeypatch):
    right = ops.segment_mean
    monkeypatch.setattr(ops, "segment_mean", lambda x, offsets, weights: right(x, offsets, None))
    _, rows = measure(*cases.select(["segment_mean"])[:1], reps=1)
    assert not rows["fastdd"]["match"]
    assert set(rows["fastdd"]["speedup"].values()) == {None}


@pytest.mark.parametrize("factor", [1.001, 1.0])
def test_a_wrong_loss_in_a_step_is_caught(monkeypatch, factor):
    from fastdd.methods import dm

    right = dm.distances
    monkeypatch.setattr(dm, "distances", lambda *arguments: factor * right(*arguments))
    _, rows = measure(*cases.select(["step/dm+fairdd"]), reps=1)
    assert rows["fastdd"]["match"] == (factor == 1)
    assert rows["torch"]["match"]


@pytest.mark.parametrize("factor", [1.001, 1.0])
def test_a_wrong_factor_of_attention_is_caught(monkeypatch, factor):
    from fastdd.methods import datadam

    monkeypatch.setattr(datadam, "_FACTOR", factor * datadam._FACTOR)
    _, rows = measure(*cases.select(["step/datadam"]), reps=1)
    assert rows["fastdd"]["match"] == (factor == 1)
    assert rows["torch"]["match"]
    assert rows["reference-loop"]["match"]


@pytest.mark.parametrize("factor", [1.001, 1.0])
@pytest.mark.parametrize("name", ["step/dc+fairdd", "step/dsa+kde"])
def test_a_wrong_gradient_in_a_matching_step_is_caught(monkeypatch, name, factor):
    from fastdd.methods import dc

    right = dc.loss_and_gradient

    def wrong(*arguments, **settings):
        loss, gradient = right(*arguments, **settings)
        gradient[-1, 0, 0, 0] += (factor - 1) * gradient.norm()
        return loss, gradient

    monkeypatch.setattr(dc, "loss_and_gradient", wrong)
    _, rows = measure(*cases.select([name]), reps=1)
    assert rows["fastdd"]["match"] == (factor == 1)
    assert (rows["fastdd"]["speedup"]["torch"] is not None) == (factor == 1)
    assert rows["torch"]["match"]
    assert rows["reference-loop"]["match"]


def test_a_wrong_training_of_the_network_is_caught(monkeypatch):
    from fastdd.methods.parts import training

    def other_rate(*arguments, **settings):
        right(*arguments[:3], torch.optim.SGD(arguments[0].parameters(), lr=0.01001), **settings)

    right = training.train_epoch
    monkeypatch.setattr(training, "train_epoch", other_rate)
    _, rows = measure(*cases.select(["step/dc-inner"]), reps=1)
    assert not rows["fastdd"]["match"]
    assert rows["torch"]["match"]


@pytest.mark.parametrize("what", ["images", "step_size", "loss", None])
@pytest.mark.parametrize("unroll", ["exact", "tesla"])
def test_a_wrong_trajectory_is_caught(monkeypatch, unroll, what):
    from fastdd.methods import unroll as mtt

    right = mtt.loss_and_gradients

    def wrong(*arguments, **settings):
        loss, gradients = right(*arguments, **settings)
        if what == "loss":
            return 1.001 * loss, gradients
        if what:
            part = getattr(gradients, what)
            part.view(-1)[-1] += 0.001 * part.norm()
        return loss, gradients

    monkeypatch.setattr(mtt, "loss_and_gradients", wrong)
    _, rows = measure(cases.select([f"step/mtt/{unroll}"])[0], reps=1)
    assert rows["fastdd"]["match"] == (what is None)
    assert (rows["fastdd"]["speedup"]["torch"] is not None) == (what is None)
    assert rows["torch"]["match"]
    assert rows["reference-loop"]["match"]


def test_the_approximation_in_place_of_the_exact_gradient_is_caught(monkeypatch):
    from fastdd.methods import unroll as mtt

    right = mtt.loss_and_gradients
    monkeypatch.setattr(mtt, "loss_and_gradients", lambda *a, unroll, **settings: right(*a, unroll="tesla", **settings))
    _, rows = measure(cases.select(["step/mtt/exact"])[0], reps=1)
    assert not rows["fastdd"]["match"]


def test_upstream_is_a_backend_like_the_others(checkout):
    code = Upstream.open(checkout)
    names = ["augment/mix", "step/dm+fairdd", "step/dc", "step/dc+fairdd", "step/dsa"]
    document, _ = measure(*cases.select(names), *cases.select(["segment_mean"])[:1], upstream=code, reps=1)
    rows = [row for row in document["rows"] if row["backend"] == "upstream"]
    assert [row["case"] for row in rows] == names
    assert all(row["match"] for row in rows)
    ours = [row for row in document["rows"] if row["backend"] == "fastdd"]
    assert [row["speedup"]["upstream"] is not None for row in ours] == [True] * len(names) + [False]
    assert document["meta"]["upstream"] == {"name": "DatasetCondensation", "commit": None}


def test_the_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    measure(*cases.select(["step/dm"]), reps=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_document_is_gone_on_with_where_it_stopped():
    class Cube(Square):
        name = "cube"

    documents = runner.run([Square(), Cube()], CPU, reps=1, budget=0.0, quick=True)
    stopped = copy.deepcopy(next(documents))
    documents.close()
    schema.validate(schema.without_nan(stopped), "of a run that was stopped")
    assert list(stopped["meta"]["case_seconds"]) == ["square"]
    kept, ceilings = copy.deepcopy(stopped["rows"]), stopped["meta"]["ceilings"]
    (document,) = runner.run([Square(), Cube()], CPU, reps=1, budget=0.0, quick=True, before=stopped)
    assert document["rows"][: len(kept)] == kept
    assert {row["case"] for row in document["rows"][len(kept) :]} == {"cube"}
    assert (list(document["meta"]["case_seconds"]), document["meta"]["ceilings"]) == (["square", "cube"], ceilings)
    assert list(runner.run([Square(), Cube()], CPU, reps=1, budget=0.0, quick=True, before=document)) == []
    with pytest.raises(ValueError, match="the file to resume has reps 1, and this is 2: use another file"):
        next(runner.run([Square()], CPU, reps=2, budget=0.0, quick=True, before=document))
