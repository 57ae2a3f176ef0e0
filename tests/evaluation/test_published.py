"""Protocols by name: what they set, and what is said besides."""

import pytest
import torch

import fastdd
from fastdd.evaluation import METRICS, PROTOCOLS, plan_evaluation, published_protocol


def test_they_report_what_their_papers_report():
    assert published_protocol("fairdd").figures == ("accuracy", "deo_m", "deo_a")
    assert (PROTOCOLS["dc"].nets, PROTOCOLS["dc"].epochs, PROTOCOLS["dc"].plain_epochs) == (20, 1000, 300)
    assert all(set(one.figures) <= set(METRICS) for one in PROTOCOLS.values())
    with pytest.raises(ValueError, match="unknown protocol 'dd'; one of: dc, fairdd, mtt, dcbench"):
        published_protocol("dd")


@pytest.mark.parametrize(("name", "strategy", "epochs"), [("mtt", "none", 1000), ("dcbench", "none", 300)])
def test_a_protocol_sets_what_is_not_given(name, strategy, epochs):
    data, cpu = fastdd.data.load("c-digits"), torch.device("cpu")
    plan = plan_evaluation("random", data, cpu, ipc=1, protocol=name, dsa_strategy=strategy)
    assert (plan.nets, plan.protocol.epochs) == (5, epochs)
    plan = plan_evaluation("random", data, cpu, ipc=1, protocol=name, nets=2, epochs=7)
    assert (plan.nets, plan.protocol.epochs) == (2, 7)
