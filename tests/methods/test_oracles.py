"""The first step of every method that matches real images, with every debias mode, against its oracle in float64.

A method, or a mode, that is added to the registry is tested here with no line written, but for the method's oracle.
"""

import copy
import math

import numpy as np
import pytest
import torch

from fastdd.bench.oracles import ORACLES
from fastdd.core import rng
from fastdd.data import Dataset, Split
from fastdd.data.initial import random_set
from fastdd.debias import MODES
from fastdd.experts import Experts, describe_experts
from fastdd.methods import METHODS, Context, configure, methods_with_steps
from fastdd.methods.idc import Idc
from fastdd.methods.ncfm import Ncfm
from fastdd.methods.parts.formation import MultiFormation

C, G, PER_CLASS, SIZE = 3, 3, 12, 16
MATCHING = [name for name in methods_with_steps() if not METHODS[name].debias_of_experts]


@pytest.fixture(scope="module")
def data():
    """Random images, of whose last class one group is missing."""
    generator = np.random.default_rng(0)
    labels = np.arange(C).repeat(PER_CLASS)
    groups = generator.integers(0, G, C * PER_CLASS)
    groups[-PER_CLASS:] %= G - 1
    split = Split(generator.integers(0, 256, (C * PER_CLASS, 3, SIZE, SIZE), dtype=np.uint8), labels, groups)
    return Dataset("made", split, split, ("a", "b", "c"), ("x", "y", "z"), (0.5,) * 3, (0.25,) * 3, {})


def experts_of(network, data):
    """Two of a network, at random."""
    manifest = {**describe_experts({**network, "debias": "none"}, data), "experts": [], "dataset_digest": None}
    size = sum(math.prod(parameter["shape"]) for parameter in manifest["parameters"])
    return Experts(0.1 * rng.normal(rng.key(0, "experts"), 6 * size).view(2, 3, size), manifest)


def check_first_step(kind, name, mode, data, monkeypatch, **metric):
    """The loss and the gradient of step 0 of a class of method ``name`` are those of its oracle."""
    # Smooth: a ReLU that rounds to the other side of zero moves a gradient by more than arithmetic does.
    network = {"arch": "ConvNetASwish", "width": 8, "depth": 2}
    config = configure(dataset="made", method=name, debias=mode, ipc=2, batch_real=8, iterations=1, **network, **metric)
    weights = torch.linspace(0.2, 2, C * PER_CLASS) if kind.takes("weights", MODES[mode]) else None
    experts = experts_of(network, data) if kind.needs_experts else None
    method = kind(config, Context(data, torch.device("cpu"), random_set(data, 2).images, weights, experts))
    seen, pulls, right = [], [], method._loss_and_gradient

    def recorded(net, segments, images, params):
        seen.extend((copy.deepcopy(net).double().requires_grad_(), segments, images.double(), params.double()))
        found = right(net, segments, images, params)
        pulls.append(found[1].clone())
        return found

    monkeypatch.setattr(method, "_loss_and_gradient", recorded)
    loss = method.match(0)
    net, segments, images, params = seen
    mean, std = (torch.tensor(values).double().view(-1, 1, 1) for values in (data.mean, data.std))
    real = (torch.from_numpy(data.train.images).double() / 255 - mean) / std
    images.requires_grad_()
    more = {"t": method.frequencies(method.keys(0), range(C)).double()} if issubclass(kind, Ncfm) else {}
    expected = ORACLES[name](net, real, segments, method.formation(images), params, **more, **metric)
    (gradient,) = torch.autograd.grad(expected, images)
    assert abs(loss - expected) <= 1e-5 * abs(expected)
    assert (pulls[0] - gradient).norm() <= 1e-5 * gradient.norm()
    # After the first step the momentum is the gradient; where classes coast it is of those that are last. AdamW keeps a
    # share of it.
    last = slice(-2, None) if issubclass(kind, Idc | Ncfm) else slice(None)
    share = 1 - config.momentum if issubclass(kind, Ncfm) else 1
    assert (method.momentum / share - gradient)[last].norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MATCHING)
def test_the_first_step_is_its_oracles(data, name, mode, monkeypatch):
    check_first_step(METHODS[name], name, mode, data, monkeypatch)


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize(("name", "mode"), [("dm", "fairdd"), ("dc", "none"), ("dsa", "kde")])
def test_on_pixels_that_hold_several_images_too(data, name, mode, factor, monkeypatch):
    class Multi(METHODS[name]):
        def _make_formation(self, context):
            return MultiFormation(factor, context.dataset.mean, context.dataset.std, context.device)

    check_first_step(Multi, name, mode, data, monkeypatch)


@pytest.mark.parametrize("metric", ["l1", "cos"])
def test_of_every_metric_of_dm(data, metric, monkeypatch):
    check_first_step(METHODS["dm"], "dm", "fairdd", data, monkeypatch, metric=metric)
