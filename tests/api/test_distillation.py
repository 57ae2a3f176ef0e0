"""fastdd.Distillation: what is refused is refused before anything takes long; one object estimates and runs."""

import numpy as np
import pytest
import torch

import fastdd
from fastdd.api import distillation, samples
from fastdd.session import Callback, Curve

QUICK = {"ipc": 1, "iterations": 2, "width": 4, "batch_real": 8, "device": "cpu"}


@pytest.fixture(scope="module")
def digits():
    return fastdd.data.load("c-digits")


@pytest.fixture
def nothing_long(monkeypatch):
    """No bias embedding is trained, no run is built."""

    def long(*_, **__):
        pytest.fail("the work has begun")

    monkeypatch.setattr(samples, "kde_weights", long)
    monkeypatch.setattr(samples, "pseudo_groups", long)
    monkeypatch.setattr(distillation, "run", long)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"iteratons": 3}, ValueError, "there is no setting 'iteratons'; did you mean iterations"),
        ({"method": "dn"}, ValueError, "unknown method 'dn'"),
        ({"debias": "fair"}, ValueError, "unknown debias mode 'fair'"),
        ({"unroll": "full"}, ValueError, "unroll is a setting of mtt, not of dm"),
        ({"ipc": 500}, ValueError, "IPC 500 is larger than every class"),
        ({"debias": "kde", "arch": "ResNet18", "width": 8}, ValueError, "ResNet18 has its own width"),
        ({"debias": "kde", "depth": 9}, ValueError, "."),
        ({"eval_nets": 2}, ValueError, "give eval_every too"),
        ({"eval_every": 0}, ValueError, "eval_every must be at least 1"),
        ({"weights": np.ones(1297)}, ValueError, "weights are for debias kde, not none"),
        ({"groups": "kmeans"}, ValueError, "dm with debias=none goes by no groups"),
        ({"debias": "kde", "groups": "kmeans"}, ValueError, "dm with debias=kde goes by no groups"),
        ({"debias": "kde", "weights": np.ones(3)}, ValueError, r"weights must be numbers \[1297\]"),
        ({"debias": "kde", "weights": -np.ones(1297)}, ValueError, "weights must be finite and at least 0"),
        ({"debias": "kde", "weights": "nowhere.npy"}, FileNotFoundError, "nowhere.npy"),
        ({"debias": "fairdd", "groups": np.zeros(3, np.int64)}, ValueError, r"groups must be int64 \[1297\]"),
        ({"debias": "fairdd", "groups": "nowhere.npy"}, FileNotFoundError, "nowhere.npy"),
        ({"debias": "fairdd", "groups": [0, 1]}, TypeError, "groups are an array int64"),
        ({"method": "mtt", "batch_real": None, "groups": "kmeans"}, ValueError, "mtt looks at no real images"),
        ({"experts": "nowhere"}, ValueError, "experts are for method mtt or ncfm, not dm"),
        ({"device": "gpu"}, ValueError, "unknown device 'gpu'"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(digits, nothing_long, arguments, error, message):
    for verb in (fastdd.Distillation, fastdd.distill, fastdd.estimate):
        with pytest.raises(error, match=message):
            verb(digits, **{**QUICK, **arguments})


def test_data_that_is_none(nothing_long):
    with pytest.raises(TypeError, match=r"not str: fastdd.data.load\('c-digits'\) loads it"):
        fastdd.distill("c-digits")
    with pytest.raises(TypeError, match="not Tensor: fastdd"):
        fastdd.evaluate("random", torch.zeros(3))
    with pytest.raises(TypeError, match="not NoneType"):
        fastdd.train_experts(None, out="nowhere")


def test_a_run_is_refused_before_weights_are_made(digits, tmp_path, nothing_long):
    job = fastdd.Distillation(digits, debias="kde", **QUICK)
    with pytest.raises(TypeError, match="not the class Curve"):
        job.run(callbacks=[Curve])
    with pytest.raises(TypeError, match="not function"):
        job.run(callbacks=[lambda run: None])
    (tmp_path / "stray.txt").touch()
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        job.run(out=tmp_path)


@pytest.fixture
def run_of_none(digits, tmp_path):
    fastdd.distill(digits, out=tmp_path / "run", **QUICK)


def test_a_run_of_other_settings_is_not_continued(digits, tmp_path, run_of_none, nothing_long):
    with pytest.raises(ValueError, match="holds a run with debias=none, not kde"):
        fastdd.distill(digits, out=tmp_path / "run", resume=True, debias="kde", **QUICK)


def test_experts_are_refused_before_weights_are_made(digits, tmp_path, nothing_long):
    few = {"num_experts": 1, "epochs": 1, "width": 4, "eval_every": 0}
    for more, message in (
        ({"processes": 0}, "processes must be at least 1"),
        ({"groups": "kmeans"}, "groups are for debias fairdd"),
        ({"depth": 9}, "."),
        ({"weights": np.ones(3)}, r"weights must be numbers \[1297\]"),
    ):
        with pytest.raises(ValueError, match=message):
            fastdd.train_experts(digits, out=tmp_path / "experts", debias="kde", **{**few, **more})
    assert not (tmp_path / "experts").exists()


def test_one_job_runs_as_distill_does_and_again(digits):
    class Losses(Callback):
        def __init__(self):
            self.seen = []

        def losses(self, run, first, values):
            self.seen += values

    job, losses = fastdd.Distillation(digits, debias="fairdd", **QUICK), Losses()
    first, again, other = job.run(callbacks=[losses]), job.run(), fastdd.distill(digits, debias="fairdd", **QUICK)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, other.images)
    assert first.metadata == other.metadata
    assert len(losses.seen) == job.settings.iterations == 2
    assert (job.settings.debias, job.settings.width, job.device.type) == ("fairdd", 4, "cpu")


def test_groups_in_a_file(digits, tmp_path):
    np.save(tmp_path / "groups.npy", digits.train.groups)
    job = fastdd.Distillation(digits, debias="fairdd", groups=tmp_path / "groups.npy", **QUICK)
    made = job.run()
    assert made.metadata["groups"] == "groups.npy"
    assert torch.equal(made.images, fastdd.distill(digits, debias="fairdd", **QUICK).images)
