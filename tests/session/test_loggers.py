"""Loggers have every row of a run's logs once, whatever was interrupted, resumed, or began without them."""

import importlib.util
import json

import numpy as np
import pytest

import fastdd
from fastdd.session import Callback, RunLog, loggers
from fastdd.session.loggers import WANDB_STATE, check_loggers, open_series, write_rows

SMALL = {"ipc": 1, "width": 4, "batch_real": 8, "eval_every": 4, "eval_nets": 1, "eval_epochs": 1, "iterations": 8}
needs_tensorboard = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="no tensorboard")
needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="no wandb")


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def wants_checkpoint(self, run):
        if run.step == self.step:
            run.stop.set()
        return False


def events(folder):
    """(step, value) of every tag, of all files, in their order."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    found = {}
    for path in sorted((folder / "tensorboard").glob("events*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, float(tensor_util.make_ndarray(value.tensor))))
    return found


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def check(folder):
    found = events(folder)
    losses = [(row["step"], float(np.float32(row["loss"]))) for row in lines(folder / "metrics.jsonl")]
    assert found["loss"] == losses
    assert len(losses) == 8
    for name in ("accuracy", "wa"):
        rows = lines(folder / "evaluations.jsonl")
        expected = [(row["iteration"], float(np.float32(row[name]["mean"]))) for row in rows]
        assert found[f"evaluation/{name}"] == expected


@needs_tensorboard
def test_tensorboard_has_the_logs_of_a_run_once(tmp_path):
    data = fastdd.data.load("c-digits")
    for first, second in (((RunLog("tensorboard"),), (RunLog("tensorboard"),)), ((), (RunLog("tensorboard"),))):
        folder = tmp_path / f"run-{len(first)}"
        with pytest.raises(KeyboardInterrupt):
            fastdd.distill(data, out=folder, callbacks=[StopAt(6), *first], **SMALL)
        if first:
            assert len(events(folder)["loss"]) == 6
            with open(folder / "metrics.jsonl", "a") as file:  # a killed run has logged more than its checkpoint knows
                file.write('{"step": 6, "loss": 123.0}\n')
        fastdd.distill(data, out=folder, resume=True, callbacks=list(second), **SMALL)
        check(folder)
    fastdd.distill(data, out=folder, resume=True, callbacks=[RunLog("tensorboard")], **SMALL)
    check(folder)


class FakeRun:
    """Of Weights & Biases: keeps what is logged."""

    def __init__(self):
        self.rows, self.finished = [], 0

    def log(self, values, step):
        self.rows.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    """A package wandb of which only what is called is there."""
    import sys
    import types

    package, package.runs = types.ModuleType("wandb"), []
    package.Settings = lambda **_: None

    def init(**settings):
        package.runs.append(FakeRun())
        package.settings = settings
        return package.runs[-1]

    package.init = init
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


def test_wandb_goes_on_with_its_run_and_gets_every_row_once(tmp_path, wandb):
    ids = []
    for rows in (range(5), range(8)):
        series = open_series(["wandb"], tmp_path, {"ipc": 1})
        for step in rows:
            series[0].write("metrics", step, {"loss": step})
        series[0].close()
        ids.append(wandb.settings["id"])
    assert ids[0] == ids[1]
    assert [[step for step, _ in run.rows] for run in wandb.runs] == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert [run.finished for run in wandb.runs] == [1, 1]
    assert json.loads((tmp_path / WANDB_STATE).read_text())["steps"] == {"metrics": 7}


@pytest.mark.full
@needs_wandb
def test_wandb_offline_takes_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    data = fastdd.data.load("c-digits")
    fastdd.distill(data, out=tmp_path / "r", callbacks=[RunLog("wandb")], ipc=1, width=4, iterations=2)
    assert list((tmp_path / "r" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_what_is_missing_is_told_before_any_work(monkeypatch):
    with pytest.raises(ValueError, match="unknown logger 'tensorbord'; one of: tensorboard, wandb; did you mean"):
        check_loggers(["tensorbord"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match="given twice"):
        check_loggers(["tensorboard", "tensorboard"])
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs the package wandb, .* pip install 'fastdd\[wandb\]'"):
        RunLog("wandb")


@needs_tensorboard
def test_rows_that_are_known_as_a_whole_are_written_anew(tmp_path):
    for _ in range(2):
        write_rows(["tensorboard"], tmp_path, {}, [(0, {"a": 1.0}), (3, {"a": 2.0})])
    assert events(tmp_path) == {"a": [(0, 1.0), (3, 2.0)]}


@needs_tensorboard
def test_a_network_in_training_logs_every_epoch_once(tmp_path):
    data = fastdd.data.load("c-digits", bias_ratio=0.5, validation=0.2)
    settings = {"training": "lff", "epochs": 3, "width": 4, "depth": 1, "out": tmp_path}

    def stop(done, *_):
        assert len(events(tmp_path).get("loss", ())) == done - 1  # on the way: this one is not saved yet
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fastdd.train_network(data, log=["tensorboard"], progress=stop, **settings)
    trained = fastdd.train_network(data, log=["tensorboard"], resume=True, **settings)
    found = events(tmp_path)
    rows = lines(tmp_path / "metrics.jsonl")
    assert len(rows) == 3
    assert found["loss"] == [(number, float(np.float32(row["loss"]))) for number, row in enumerate(rows, 1)]
    assert found["validation/wa"] == [(number, float(np.float32(row["wa"]))) for number, row in enumerate(rows, 1)]
    conflicting = [row["weights"]["loss"]["conflicting"] for row in rows]
    assert [value for _, value in found["weights/loss/conflicting"]] == np.float32(conflicting).tolist()
    assert found["result/accuracy"] == [(3, float(np.float32(trained.metrics().accuracy)))]
    with pytest.raises(ValueError, match="give out too"):
        fastdd.train_network(data, log=["tensorboard"], epochs=1)
