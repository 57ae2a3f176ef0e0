"""Runs that run away or change nothing are stopped or told, with the step, the value and the knob."""

import dataclasses
import gc
import warnings

import numpy as np
import pytest
import torch

from fastdd import session
from fastdd.data import Dataset, Split, load
from fastdd.experts.store import Experts, parameter_list
from fastdd.methods import configure
from fastdd.models import ParameterInit, build
from fastdd.session.folder import State

LOOPS = {"outer_loop": 3, "inner_loop": 2, "batch_train": 16}
METHODS = {"dm": {}, "datadam": {}, "dc": LOOPS, "dsa": LOOPS}


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


def config(method, **settings):
    usual = {"dataset": "c-digits", "ipc": 1, "iterations": 2, "batch_real": 8, "width": 8, "depth": 2}
    return configure(method=method, **{**usual, **METHODS.get(method, {}), **settings})


@pytest.mark.parametrize("method", METHODS)
def test_images_that_run_away_stop_the_run(digits, method, tmp_path):
    with pytest.raises(RuntimeError, match=r"step \d+: the images reach \d.*; lower lr_img \(1e\+09\)$") as caught:
        session.run(config(method, lr_img=1e9), digits, out=tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "synthetic.safetensors").exists()


def test_large_images_to_begin_with_are_no_runaway(digits):
    narrow = dataclasses.replace(digits, std=(1e-6,) * 3)
    made = session.run(config("dm"), narrow)
    assert made.images.abs().max() > 1e5


@pytest.mark.parametrize("lr_net", [1e3, 1e30])
def test_a_network_that_diverges_between_steps_is_named_and_not_the_images(digits, lr_net):
    with pytest.raises(RuntimeError, match=r"step 1: the network diverged .*; lower lr_net \(1e\+0?3?0?|1000\)"):
        session.run(config("dc", lr_net=lr_net), digits)


@pytest.mark.parametrize("method", METHODS)
def test_images_that_do_not_change_are_told(digits, method):
    with pytest.warns(RuntimeWarning, match=r"no synthetic image has changed in \d steps; raise lr_img \(1e-30\)"):
        session.run(config(method, lr_img=1e-30), digits)


def test_gradient_matching_of_one_class_is_told():
    split = Split(np.random.default_rng(0).integers(0, 256, (9, 3, 16, 16), np.uint8), *np.zeros((2, 9), np.int64))
    one = Dataset("mine", split, split, ("all",), ("all",), (0.5,) * 3, (0.25,) * 3, {})
    with pytest.warns(RuntimeWarning, match="no synthetic image has changed in 6 steps; with one .* use method dm"):
        session.run(config("dc"), one)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        session.run(config("dm"), one)


def test_a_checkpoint_of_images_that_ran_away_is_not_continued(digits, tmp_path):
    session.run(config("dm"), digits, out=tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    run = session.Run(config("dm"), digits, out=tmp_path, resume=True)
    state = State(saved["step"], {**run.method.state(), "images": run.method.images.detach() * 1e9}, 0.0)
    run.folder.save(state)
    del run  # and its hold of the folder
    gc.collect()
    with pytest.raises(RuntimeError, match=r"in its checkpoint of step 2 the images reach .*; lower lr_img"):
        session.Run(config("dm"), digits, out=tmp_path, resume=True)


def test_experts_that_do_not_move_are_named_by_their_students(digits):
    net = build("ConvNetD2", 3, 10, digits.size, width=8)
    init = ParameterInit(net)
    init.fill(0)
    values = init.flat.expand(1, 3, -1)
    about = {
        **{"dataset": "c-digits", "dataset_digest": None, "channels": 3, "num_classes": 10, "size": [16, 16]},
        "config": {"arch": "ConvNetD2", "width": 8, "depth": None, "debias": "none"},
        "parameters": parameter_list(net),
    }
    student = {"arch": "ConvNetD2", "depth": None, "max_start_epoch": 1, "expert_epochs": 1, "syn_steps": 2}
    run = configure(**{"dataset": "c-digits", "ipc": 1, "iterations": 2, "width": 8, "method": "mtt", **student})
    with pytest.raises(RuntimeError, match="step 0: expert 0 does not move from epoch 0 to 1; train experts with"):
        session.run(run, digits, experts=Experts(values.contiguous(), about, None))
