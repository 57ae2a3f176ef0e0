"""Protocols by name: what they set, and what is said besides."""

from dataclasses import replace

import pytest
import torch

import fastdd
from fastdd.data import SyntheticSet
from fastdd.data.initial import random_set
from fastdd.evaluation import METRICS, PROTOCOLS, Protocol, plan_evaluation, published_protocol


def test_they_report_what_their_papers_report():
    assert published_protocol("fairdd").figures == ("accuracy", "deo_m", "deo_a")
    assert (PROTOCOLS["dc"].nets, PROTOCOLS["dc"].epochs, PROTOCOLS["dc"].plain_epochs) == (20, 1000, 300)
    assert all(set(one.figures) <= set(METRICS) for one in PROTOCOLS.values())
    with pytest.raises(ValueError, match="unknown protocol 'dd'; one of: dc, fairdd, mtt, idc, ncfm, rded, dcbench"):
        published_protocol("dd")


@pytest.mark.parametrize(("name", "strategy", "epochs"), [("mtt", "none", 1000), ("dcbench", "none", 300)])
def test_a_protocol_sets_what_is_not_given(name, strategy, epochs):
    data, cpu = fastdd.data.load("c-digits"), torch.device("cpu")
    plan = plan_evaluation("random", data, cpu, ipc=1, protocol=name, dsa_strategy=strategy)
    assert (plan.nets, plan.protocol.epochs) == (5, epochs)
    plan = plan_evaluation("random", data, cpu, ipc=1, protocol=name, nets=2, epochs=7)
    assert (plan.nets, plan.protocol.epochs) == (2, 7)


@pytest.mark.parametrize(
    ("dataset", "factor", "strategy", "cutmix"),
    [
        ("cifar10", 2, "color_crop_flip_scale_rotate", 0.5),
        ("c-mnist-fg", 2, "color_crop_flip_scale_rotate", 0.5),
        ("fashion-mnist", 1, "color_crop_flip_scale_rotate", 0.5),
        ("mnist", 1, "color_crop_scale_rotate", 0.5),
        ("mnist", 2, "color_crop_scale_rotate", 0.0),
    ],
)
def test_idc_trains_in_its_own_way(dataset, factor, strategy, cutmix):
    start = random_set(fastdd.data.load("c-digits"), 1)
    data = replace(fastdd.data.load("c-digits"), name=dataset)
    made = SyntheticSet(start.images, start.labels, start.metadata | {"formation": factor})
    plan = plan_evaluation(made, data, torch.device("cpu"), protocol="idc")
    trained = plan.protocol
    assert (plan.nets, trained.epochs, trained.passes, trained.falls) == (3, 1000, 1000, [666, 833])
    assert (trained.batch, trained.gamma, trained.learning_rate) == (64, 0.2, 0.01)
    assert (trained.dsa_strategy, trained.cutmix, trained.composition) == (strategy, cutmix, "idc")
    assert len(plan.labels) == 10 * factor**2
    given = plan_evaluation(made, data, torch.device("cpu"), protocol="idc", dsa_strategy="flip", epochs=7).protocol
    assert (given.dsa_strategy, given.passes, given.falls) == ("flip", 7, [4, 5])


def test_ncfm_trains_in_its_own_way():
    data, cpu = fastdd.data.load("c-digits"), torch.device("cpu")
    plan = plan_evaluation("random", data, cpu, ipc=1, protocol="ncfm")
    trained = plan.protocol
    assert (plan.nets, trained.passes, trained.falls) == (10, 2000, [400, 800, 1200, 1600])
    assert (trained.optimizer, trained.learning_rate, trained.weight_decay) == ("adamw", 0.001, 0.01)
    assert (trained.batch, trained.gamma, trained.momentum) == (128, 0.5, 0.9)
    strategy = "color_crop_flip_scale_rotate"
    assert (trained.dsa_strategy, trained.cutmix, trained.composition) == (strategy, 0.5, "idc")
    # A learned rate is one of SGD.
    start = random_set(data, 1)
    learned = SyntheticSet(start.images, start.labels, start.metadata, learning_rate=0.05)
    assert plan_evaluation(learned, data, cpu, protocol="ncfm").protocol.learning_rate == 0.001
    assert plan_evaluation(learned, data, cpu, protocol="ncfm", learning_rate=0.02).protocol.learning_rate == 0.02


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cutmix": 1.5}, "cutmix must be a probability, 0 to 1, not 1.5"),
        ({"gamma": 0.0}, "gamma must be above 0 and at most 1, not 0.0"),
        ({"optimizer": "adam"}, "optimizer must be sgd or adamw, not 'adam'"),
        ({"composition": "all"}, "composition must be dsa or idc, not 'all'"),
        ({"milestones": (1.0,)}, "between 0 and 1, not"),
    ],
)
def test_another_training_that_can_not_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**settings)


def test_biased_dd_trains_on_the_whole_set_as_its_paper_says():
    data = fastdd.data.load("c-digits")
    plan = plan_evaluation("whole", data, torch.device("cpu"), protocol="biased-dd")
    protocol = plan.protocol
    assert (plan.nets, protocol.passes, protocol.falls, protocol.gamma) == (3, 150, [50, 100], 0.1)
    assert (protocol.batch, protocol.weight_decay, protocol.dsa_strategy) == (256, 5e-4, "none")
    with pytest.raises(ValueError, match="protocol biased-dd is of networks on the whole training set"):
        plan_evaluation("random", data, torch.device("cpu"), ipc=1, protocol="biased-dd")
