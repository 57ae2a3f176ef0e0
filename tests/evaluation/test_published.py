"""Protocols by name: what they set, and what is said besides."""

import pytest

import fastdd
from fastdd import api
from fastdd.evaluation import METRICS, PROTOCOLS, published_protocol


def test_they_report_what_their_papers_report():
    assert published_protocol("fairdd").figures == ("accuracy", "deo_m", "deo_a")
    assert (PROTOCOLS["dc"].nets, PROTOCOLS["dc"].epochs, PROTOCOLS["dc"].plain_epochs) == (20, 1000, 300)
    assert all(set(one.figures) <= set(METRICS) for one in PROTOCOLS.values())
    with pytest.raises(ValueError, match="unknown protocol 'dd'; one of: dc, fairdd, mtt, dcbench"):
        published_protocol("dd")


@pytest.mark.parametrize(("name", "strategy", "epochs"), [("mtt", "none", 1000), ("dcbench", "none", 300)])
def test_a_protocol_sets_what_is_not_given(monkeypatch, name, strategy, epochs):
    asked = {}

    def evaluate(images, labels, data, **arguments):
        asked.update(arguments)

    monkeypatch.setattr(api, "_evaluate", evaluate)
    data = fastdd.data.load("c-digits")
    fastdd.evaluate("random", data, ipc=1, protocol=name, dsa_strategy=strategy)
    assert (asked["nets"], asked["protocol"].epochs) == (5, epochs)
    fastdd.evaluate("random", data, ipc=1, protocol=name, nets=2, epochs=7)
    assert (asked["nets"], asked["protocol"].epochs) == (2, 7)
