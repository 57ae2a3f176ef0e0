"""Estimates: their arithmetic on a clock that only the estimated work moves, and real sizes of real runs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fastdd
from fastdd import api
from fastdd.data import Dataset, DeviceImages, Split
from fastdd.evaluation import Protocol
from fastdd.methods import Method, Part, configure
from fastdd.methods.parts.representatives import Representatives
from fastdd.session import estimate


class Clock:
    """Stands in for ``time``: seconds pass only where work says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(estimate, "time", clock)
    return clock


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(estimate, "_SECONDS", 0.1)


def of_classes(number: int) -> Dataset:
    images = np.zeros((2 * number, 1, 8, 8), np.uint8)
    split = Split(images, np.repeat(np.arange(number), 2), np.zeros(2 * number, np.int64))
    names = tuple(map(str, range(number)))
    return Dataset("made", split, split, names, ("all",), (0.5,), (0.5,), {})


def fake_method(monkeypatch, clock, match, train=0.0, steps=1, fixed=0.0, begin=0.0):
    """A method that takes ``begin`` seconds a class before its first step; its matching takes ``fixed`` and ``match``
    a class, and training ``train``; what it saw."""
    measured = []

    class Fake(Method):
        def __init__(self, config, context):
            self._number = context.dataset.num_classes if context.classes is None else len(context.classes)
            clock.work(begin * self._number)
            measured.append(self._number)

        def parts(self):
            matching = Part(lambda _: clock.work(fixed + match * self._number), steps, True)
            return [matching, *([Part(lambda _: clock.work(train), steps - 1, False)] if steps > 1 else [])]

        def state(self):
            return {"images": torch.zeros(250)}

    monkeypatch.setattr(estimate, "method", lambda name: Fake)
    return measured


def test_the_last_matching_of_an_iteration_is_followed_by_no_training(monkeypatch, clock):
    fake_method(monkeypatch, clock, match=0.1, train=0.5, steps=10)
    config = configure(dataset="made", method="dc", ipc=1, iterations=7, outer_loop=10, inner_loop=5)
    seconds, disk, notes = estimate.distillation(config, of_classes(5), torch.device("cpu"))
    assert seconds == pytest.approx(7 * (10 * 0.5 + 9 * 0.5))
    assert not notes
    # Two checkpoints of 1,000 bytes, the images, a line a step.
    assert disk == 2 * 1000 + 5 * 64 * 4 + 48 * 70


@pytest.mark.parametrize(
    ("match", "expected", "measured"),
    [
        (0.1, 20 * (0.05 + 1.0), [10]),  # what does not grow with classes is counted with them
        (0.01, 0.05 + 2.0, [10, 200]),
    ],
)
def test_steps_of_many_classes_are_measured_on_few_where_they_are_long(monkeypatch, clock, match, expected, measured):
    seen = fake_method(monkeypatch, clock, match=match, fixed=0.05)
    config = configure(dataset="made", ipc=1, iterations=3)
    seconds, _, notes = estimate.distillation(config, of_classes(200), torch.device("cpu"))
    assert seen == measured
    assert notes == (() if 200 in measured else ("steps measured on 10 of 200 classes",))
    assert seconds == pytest.approx(3 * expected)


@pytest.mark.parametrize(("classes", "match"), [(5, 0.1), (200, 0.1), (200, 0.01)])
def test_what_comes_before_the_first_step_counts_once(monkeypatch, clock, classes, match):
    fake_method(monkeypatch, clock, match=match, begin=2.0)
    config = configure(dataset="made", ipc=1, iterations=3)
    seconds, _, _ = estimate.distillation(config, of_classes(classes), torch.device("cpu"))
    assert seconds == pytest.approx(2.0 * classes + 3 * match * classes)


def test_the_clustering_of_the_first_images_counts(monkeypatch, clock, brief):
    monkeypatch.setattr(
        Representatives, "find", lambda self, net, label, count, key: clock.work(7.0) or torch.arange(1)
    )
    data, network = of_classes(3), {"arch": "ConvNet", "width": 4, "depth": 2}
    few = {"ipc": 1, "iterations": 1, "outer_loop": 4, "interval": 4, "train_images": 0, "batch_real": 2}
    taken = {
        init: estimate.distillation(
            configure(dataset="made", method="dream", init=init, **few, **network), data, torch.device("cpu")
        )[0]
        for init in ("kmean", "mix")
    }
    assert taken["mix"] == pytest.approx(3 * 7.0)
    assert taken["kmean"] == pytest.approx(3 * 7.0 + 3 * 7.0)


def test_an_evaluation_is_its_epochs_and_a_test_a_network(monkeypatch, clock):
    def evaluate(images, labels, dataset, *, nets, protocol, **network):
        assert nets == 1
        batches = -(-len(labels) // protocol.batch)
        taken = 0.02 * batches * (protocol.epochs + 1) + 0.001 * len(dataset.test)
        return SimpleNamespace(seconds=taken)

    monkeypatch.setattr(estimate, "_evaluate", evaluate)
    data = of_classes(3000)
    images = DeviceImages.of(data.train.images, data.mean, data.std)
    labels = torch.as_tensor(data.train.labels)
    protocol = Protocol(epochs=99, batch=100)
    seconds = estimate.evaluation(images, labels, data, nets=3, protocol=protocol)
    # 60 batches an epoch, of which 8 are measured; 6,000 test images, of which 2,048 are.
    assert seconds == pytest.approx(3 * (100 * 0.02 * 60 + 6.0), rel=1e-3)


def test_what_is_said_of_a_runs_folder_is_what_it_takes(tmp_path, brief):
    data = fastdd.data.load("c-digits")
    settings = {"ipc": 2, "iterations": 10, "width": 8}
    fastdd.distill(data, out=tmp_path / "run", checkpoint_seconds=0, **settings)
    taken = fastdd.estimate(data, nets=1, epochs=5, **settings)
    assert list(taken.seconds) == ["distillation", "evaluation"]
    assert all(seconds > 0 for seconds in taken.seconds.values())
    size = sum(file.stat().st_size for file in (tmp_path / "run").iterdir())
    assert size == pytest.approx(taken.disk, rel=0.3)
    assert taken.total == sum(taken.seconds.values())
    assert taken.gpu_memory is None


def test_parts_of_experts_and_of_weights_that_are_not_given(brief):
    data = fastdd.data.load("c-digits")
    taken = api.estimate_experts(data, debias="kde", num_experts=3, epochs=4, width=4, zca=True, eval_every=2)
    assert list(taken.seconds) == ["bias embedding", "whitening", "experts"]
    parameters = (4 * 27 + 4 + 8) + (4 * 36 + 4 + 8) + (4 * 4 * 4 * 10 + 10)  # two blocks, 16x16 to 4x4
    whitening = 4 * (768 + 768 * 768)
    assert taken.disk == 4 * 3 * 5 * parameters + whitening
    given = fastdd.estimate(data, debias="kde", weights=np.ones(len(data.train)), ipc=1, iterations=1, width=4)
    assert list(given.seconds) == ["distillation"]
    assert list(api.estimate_weights(data, steps=20, variance=0.2).seconds) == ["weights"]
    with pytest.raises(ValueError, match="variance"):
        api.estimate_weights(data, variance=-1.0)


def test_settings_that_a_run_would_refuse_are_refused():
    data = fastdd.data.load("c-digits")
    with pytest.raises(ValueError, match="IPC 500 is larger than every class"):
        fastdd.estimate(data, ipc=500)
    with pytest.raises(ValueError, match="zca=True does not fit"):
        fastdd.estimate(data, method="mtt", zca=True)
