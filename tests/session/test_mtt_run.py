"""Runs of trajectory matching: what is learned, resumed to the same bits after a kill, stopped when it diverges."""

import json
import math
import os

import pytest
import torch
from forked import Script

import fastdd
from fastdd import models, session
from fastdd.core import rng
from fastdd.data import DeviceImages, SyntheticSet, Zca, load
from fastdd.data.initial import random_set
from fastdd.experts.store import Experts, parameter_list
from fastdd.methods import Context, configure
from fastdd.methods import unroll as mtt
from fastdd.methods.mtt import Mtt
from fastdd.methods.parts.training import train_epoch

EXPERTS, EPOCHS, WIDTH = 2, 4, 8


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


def trained(data, zca=None, debias="none"):
    """Small experts, in memory."""
    net = models.build("ConvNetD2", 3, 10, data.size, width=WIDTH)
    init = models.ParameterInit(net)
    images = DeviceImages.of(data.train.images, data.mean, data.std) if zca is None else zca.read(data.train.images)
    labels = torch.as_tensor(data.train.labels)
    values = torch.empty(EXPERTS, EPOCHS + 1, init.flat.numel())
    for expert in range(EXPERTS):
        init.fill(rng.key(0, "expert", expert))
        net.train()
        sgd = torch.optim.SGD(net.parameters(), lr=0.02)
        values[expert, 0] = init.flat
        for epoch in range(EPOCHS):
            train_epoch(net, images, labels, sgd, batch=256, dsa_strategy="none", key=(0, "expert", expert, epoch))
            values[expert, epoch + 1] = init.flat
    about = {
        "config": {"arch": "ConvNetD2", "width": WIDTH, "depth": None, "debias": debias},
        "dataset": data.name,
        "dataset_digest": data.digest(),
        "channels": 3,
        "num_classes": 10,
        "size": list(data.size),
        "parameters": parameter_list(net),
    }
    return Experts(values, about, zca)


@pytest.fixture(scope="module")
def experts(digits):
    return trained(digits)


def student(settings, images, experts, digits):
    return Mtt(settings, Context(digits, torch.device("cpu"), images, experts=experts))


def config(**settings):
    return configure(
        **{
            "dataset": "c-digits",
            "method": "mtt",
            "ipc": 2,
            "iterations": 4,
            "arch": "ConvNetD2",
            "width": WIDTH,
            "depth": None,
            "syn_steps": 3,
            "expert_epochs": 2,
            "max_start_epoch": 3,
            "lr_teacher": 0.02,
            "lr_lr": 1e-4,
            "lr_img": 10.0,
            "zca": False,
            **settings,
        }
    )


def test_images_step_size_and_labels_are_learned(digits, experts, tmp_path):
    start = random_set(digits, 2)
    made = session.run(config(soft_labels="learned", lr_label=1.0), digits, experts=experts, out=tmp_path)
    read = SyntheticSet.load(tmp_path / "synthetic.safetensors")
    for found in (made, read):
        assert not torch.equal(found.images, start.images)
        assert found.learning_rate > 0
        assert found.learning_rate != pytest.approx(0.02, rel=1e-6)
        assert found.soft_labels.shape == (20, 10)
        torch.testing.assert_close(found.soft_labels.sum(1), torch.ones(20))
    assert torch.equal(made.images, read.images)
    assert read.learning_rate == made.learning_rate
    hard = session.run(config(), digits, experts=experts)
    assert hard.soft_labels is None


def test_the_loss_falls(digits, experts, tmp_path):
    session.run(config(iterations=40, lr_img=30.0, max_start_epoch=1), digits, experts=experts, out=tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").open()]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_logarithms_first_update_is_the_published_one(digits, experts):
    """To first order in lr_lr; and the published one moves the step size by -lr_lr dL/da."""
    rates = {}
    for kind in ("raw", "log"):
        stepper = student(config(step_size=kind, lr_lr=1e-7), random_set(digits, 2).images, experts, digits)
        stepper.step(0)
        rates[kind] = (stepper.step_size.double() - 0.02).item()
    assert rates["log"] == pytest.approx(rates["raw"], rel=0.02)  # float32 steps of 2e-9 in 1e-6
    assert rates["raw"] != 0


def test_the_logarithm_stays_positive_where_the_published_step_size_does_not(digits, experts):
    # Raw, it is below zero after the first step and above it after the second.
    settings = {"lr_teacher": 0.2, "lr_lr": 0.01, "iterations": 2}
    message = r"step \d+: the learned step size is -.*; use step_size log, or lower lr_lr \(0.01\)"
    with pytest.raises(RuntimeError, match=message):
        session.run(config(step_size="raw", **settings), digits, experts=experts)
    assert session.run(config(step_size="log", **settings), digits, experts=experts).learning_rate > 0


def test_teacher_labels_are_those_of_the_target(digits, experts):
    images = random_set(digits, 2).images
    stepper = student(config(soft_labels="teacher", max_start_epoch=1, lr_img=1e-30), images, experts, digits)
    stepper.step(0)
    net = models.build("ConvNetD2", 3, 10, digits.size, width=WIDTH)
    said = [mtt.logits(net, experts.at(expert, 2), images).softmax(1) for expert in range(EXPERTS)]
    assert min((stepper.learned()["soft_labels"] - labels).abs().max() for labels in said) < 1e-5


def test_published_factor_halves_the_images_gradient(digits, experts):
    moved = []
    for factor in (None, True):
        images = random_set(digits, 2).images
        stepper = student(config(unroll="tesla", published_factor=factor), images, experts, digits)
        stepper.step(0)
        moved.append(stepper.momentum)
    torch.testing.assert_close(moved[1], 0.5 * moved[0], rtol=0, atol=0)


def test_a_stored_set_gives_its_images_but_not_what_was_learned_beside_them(digits, experts, tmp_path):
    settings = {"method": "mtt", "experts": experts, "ipc": 2, "lr_img": 1e-30, "lr_lr": 0.0, "syn_steps": 2}
    settings |= {"iterations": 1, "expert_epochs": 2, "max_start_epoch": 3, "lr_teacher": 0.02, "batch_syn": 20}
    start = random_set(digits, 2, 9)
    soft = torch.full((20, 10), 0.1)
    SyntheticSet(start.images, start.labels, start.metadata, 0.5, soft).save(tmp_path / "set.safetensors")
    with pytest.warns(RuntimeWarning, match="no synthetic image has changed"):
        made = fastdd.distill(digits, init=tmp_path / "set.safetensors", **settings)
    assert torch.equal(made.images, start.images)
    assert made.soft_labels is None
    assert made.learning_rate == pytest.approx(0.02)


@pytest.mark.parametrize("unroll", mtt.UNROLLS)
def test_unrolls_agree_where_they_should(digits, experts, unroll):
    made = session.run(config(unroll=unroll, iterations=1, arch="ConvNetD2"), digits, experts=experts)
    exact = session.run(config(iterations=1), digits, experts=experts)
    near = (made.images - exact.images).abs().max() < 1e-3 * (exact.images - random_set(digits, 2).images).abs().max()
    assert near == (unroll != "tesla")


def test_batches_are_the_set_in_random_order_again_and_again(digits, experts):
    stepper = student(config(batch_syn=8, syn_steps=7), random_set(digits, 2).images, experts, digits)
    batches = stepper._batches(stepper.keys(3))
    assert [len(rows) for rows in batches] == [8, 8, 4, 8, 8, 4, 8]
    for epoch in (batches[:3], batches[3:6]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(20))
    assert not torch.equal(torch.cat(batches[:3]), torch.cat(batches[3:6]))


@pytest.mark.parametrize("settings", [{}, {"soft_labels": "learned", "lr_label": 1.0}, {"soft_labels": "teacher"}])
def test_stopped_and_resumed_to_the_same_bits(digits, experts, tmp_path, monkeypatch, settings):
    whole = session.run(config(**settings), digits, experts=experts)
    own_step = Mtt.step

    def step(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return own_step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Mtt, "step", step)
        with pytest.raises(KeyboardInterrupt):
            session.run(config(**settings), digits, experts=experts, out=tmp_path, checkpoint_seconds=0)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    made = session.run(config(**settings), digits, experts=experts, out=tmp_path, resume=True)
    assert torch.equal(made.images, whole.images)
    assert made.learning_rate == whole.learning_rate
    if settings:
        assert torch.equal(made.soft_labels, whole.soft_labels)


SCRIPT = """
import sys
import fastdd
data = fastdd.data.load("c-digits")
print("ready", flush=True)
fastdd.distill(data, method="mtt", experts=sys.argv[1], ipc=2, iterations=30, syn_steps=3, expert_epochs=1,
               max_start_epoch=2, out=sys.argv[2], resume=True, checkpoint_seconds=0)
"""


def test_killed_runs_on_trained_experts_end_the_same(digits, tmp_path):
    import fastdd

    fastdd.train_experts(digits, out=tmp_path / "experts", num_experts=2, epochs=2, width=WIDTH)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    metrics = killed / "metrics.jsonl"
    Script(SCRIPT, tmp_path / "experts", whole).succeed()
    for target in (5, 20):
        script = Script(SCRIPT, tmp_path / "experts", killed)
        script.wait_until(lambda done=target: metrics.exists() and metrics.read_bytes().count(b"\n") >= done)
        script.kill()
    Script(SCRIPT, tmp_path / "experts", killed).succeed()
    name = "synthetic.safetensors"
    assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert "checkpoint.pt" in os.listdir(killed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_img": 1e8}, r"step \d+: .*the images reach .*; lower lr_img \(1e\+08\)"),
        ({"lr_lr": 1.0}, r"step \d+: .*its step size grew from 0.02 to .*; lower lr_lr \(1\)"),
        (
            {"lr_lr": 0.1, "lr_teacher": 0.05},
            r"step \d+: the learned step size fell from 0.05 to .*; lower lr_lr \(0.1\)",
        ),
        ({"lr_teacher": 50.0}, r"step 0: .*lower lr_teacher \(50\), its first step size, or syn_steps \(3\)"),
    ],
)
def test_divergence_stops_the_run_and_names_the_knob(digits, experts, settings, message):
    with pytest.raises(RuntimeError, match=message) as error:
        session.run(config(**settings), digits, experts=experts)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_syn": 21}, "batch_syn 21 is larger than the synthetic set of 20 images"),
        ({"expert_epochs": 3}, "trained for 4 epochs; max_start_epoch 3 with expert_epochs 3 needs 5"),
        ({"width": 16}, r"features.0.weight.*\[8, 3, 3, 3\].*\[16, 3, 3, 3\]"),
        ({"arch": "ConvNetMP", "depth": 2}, "experts have another network: they are of ConvNetD2, whose"),
        ({"debias": "fairdd"}, "trained with debias=none, not fairdd"),
        ({"zca": True}, r"images that are not whitened: zca=True does not fit them"),
        ({"method": "dm", "iterations": 1}, "experts are for method mtt or ncfm, not dm"),
    ],
)
def test_experts_that_do_not_fit(digits, experts, settings, message):
    made = configure(dataset="c-digits", ipc=2, **settings) if settings.get("method") == "dm" else config(**settings)
    with pytest.raises(ValueError, match=message) as error:
        session.run(made, digits, experts=experts)
    assert "\n" not in str(error.value)


def test_experts_are_needed_and_those_of_other_data_are_refused(digits, experts):
    with pytest.raises(ValueError, match="method mtt needs the trajectories of experts"):
        session.run(config(), digits)
    other = load("c-digits", bias_ratio=0.5)
    with pytest.raises(ValueError, match=r"trained on other data \(c-digits\) than this c-digits"):
        session.run(config(), other, experts=experts)
    narrower = {**experts.manifest, "num_classes": 9}
    with pytest.raises(ValueError, match=r"images of \[3, 16, 16\] in 9 classes; c-digits has \[3, 16, 16\] in 10"):
        session.run(config(), digits, experts=Experts(experts.values, narrower))


def test_another_name_of_their_network_is_their_network(digits, experts):
    wanted = session.run(config(), digits, experts=experts).images
    assert torch.equal(session.run(config(arch="ConvNet", depth=2), digits, experts=experts).images, wanted)


def test_other_experts_are_another_run(digits, experts, tmp_path):
    session.run(config(), digits, experts=experts, out=tmp_path)
    others = Experts(experts.values + 1e-3, experts.manifest)
    with pytest.raises(ValueError, match="holds a run on other data"):
        session.run(config(), digits, experts=others, out=tmp_path, resume=True)


def test_whitened_experts_make_a_whitened_set(digits):
    zca = Zca.fit(digits.train.images)
    made = session.run(config(zca=True), digits, experts=trained(digits, zca))
    assert made.zca is zca
    start = random_set(digits, 2)
    # Pictures, a little changed, where the whitened values are far from pixels.
    assert (made.to_uint8().float() - start.to_uint8().float()).abs().mean() < 30
    assert math.isfinite(made.learning_rate)
