"""Step sizes that fall: against SGD in fp64, over a stop, from keys on a device; narrower networks; the fast preset."""

import math

import pytest
import torch

from fastdd import methods, session
from fastdd.core.graph import KeyTable
from fastdd.data import load
from fastdd.data.initial import random_set
from fastdd.methods import Context, configure
from fastdd.methods.dm import Dm

STEPS = 5
SETTINGS = {
    **{"dataset": "c-digits", "ipc": 1, "iterations": STEPS, "batch_real": 4, "width": 4, "depth": 2},
    **{"debias": "fairdd", "lr_img": 0.7, "momentum": 0.5, "lr_schedule": "cosine"},
}


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


def made(digits, **settings):
    config = configure(**{**SETTINGS, **settings})
    return Dm(config, Context(digits, torch.device("cpu"), random_set(digits, 1, 0).images))


def test_is_sgd_with_this_step_size(digits, monkeypatch):
    method, gradients = made(digits), []
    move = method._move

    def noted(gradient, keys):
        gradients.append(gradient.double())
        move(gradient, keys)

    monkeypatch.setattr(method, "_move", noted)
    images, velocity = method.images.detach().double().clone(), 0.0
    for number in range(STEPS):
        method.step(number)
        velocity = 0.5 * velocity + gradients[-1]
        images = images - 0.7 * 0.5 * (1 + math.cos(math.pi * number / STEPS)) * velocity
    torch.testing.assert_close(method.images.detach().double(), images, rtol=0, atol=2e-6)


def test_without_it_no_key_is_added(digits):
    assert sorted(made(digits, lr_schedule="constant").keys(0)) == ["batch", "dsa", "net"]


def test_keys_of_a_device_do_the_same_bits(digits):
    whole, by_keys = made(digits), made(digits)
    table = KeyTable(by_keys.keys, "cpu", rows=3)
    for number in range(STEPS):
        whole.step(number)
        table.seek(number)
        by_keys._do(number, table.take())
    assert torch.equal(whole.images, by_keys.images)


@pytest.mark.parametrize("done", [1, 4])
def test_a_stopped_run_ends_with_the_same_bits(digits, tmp_path, monkeypatch, done):
    config, own_step = configure(**SETTINGS), Dm.step
    whole = session.run(config, digits)

    def step(self, number):
        if number == done:
            raise KeyboardInterrupt
        return own_step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Dm, "step", step)
        with pytest.raises(KeyboardInterrupt):
            session.run(config, digits, out=tmp_path, checkpoint_seconds=0)
    assert torch.equal(session.run(config, digits, out=tmp_path, resume=True).images, whole.images)
    assert not torch.equal(
        whole.images, session.run(configure(**{**SETTINGS, "lr_schedule": "constant"}), digits).images
    )


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 3)])
def test_a_run_whose_rate_has_fallen_is_not_given_other_iterations(digits, tmp_path, before, after):
    session.run(configure(**{**SETTINGS, "iterations": before}), digits, out=tmp_path)
    with pytest.raises(ValueError, match=f"holds a run with iterations={before}, not {after}"):
        session.run(configure(**{**SETTINGS, "iterations": after}), digits, out=tmp_path, resume=True)


def test_the_fast_preset_is_shipped_settings_that_give_way():
    fast = configure(dataset="c-mnist-fg", debias="fairdd", preset="fast")
    shipped = methods.preset("dm", "c-mnist-fg", 10, "fairdd", named="fast")
    assert (fast.lr_schedule, fast.sampling, fast.init) == ("cosine", "stratified", "balanced")
    assert {name: getattr(fast, name) for name in shipped} == shipped
    assert configure(dataset="c-mnist-fg", debias="fairdd", preset="fast", lr_schedule="constant").iterations == (
        fast.iterations
    )
    published = configure(dataset="c-mnist-fg", debias="fairdd")
    assert (published.iterations, published.lr_schedule, published.match_width) == (20_000, "constant", None)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"preset": "fast"}, "preset fast draws evenly over groups: it is for debias fairdd"),
        ({"preset": "quick"}, "preset must be one of published, fast, not 'quick'"),
        ({"match_width": 8, "arch": "LeNet"}, "match_width 8 is of random ConvNets, not of LeNet: leave it out"),
        ({"lr_schedule": "linear"}, "lr_schedule must be one of constant, cosine, not 'linear'"),
    ],
)
def test_bad_settings_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        configure(dataset="c-digits", **settings)


def test_narrower_networks_are_those_of_this_width_and_the_set_keeps_its_own(digits):
    narrow, of_width = made(digits, width=8, match_width=4), made(digits, width=4)
    for number in range(2):
        narrow.step(number)
        of_width.step(number)
    assert torch.equal(narrow.images, of_width.images)
    assert session.run(configure(**{**SETTINGS, "width": 8, "match_width": 4}), digits).metadata["run"]["width"] == 8
    assert configure(dataset="c-digits", debias="fairdd", preset="fast", arch="LeNet").match_width is None
