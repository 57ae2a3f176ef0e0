"""The tally itself: what it counts is what campaigns are judged by."""

import json

import pytest
from tally import OUTCOMES, Tally


def test_counts_are_summed_over_processes_and_faults_kept_in_words(tmp_path):
    one, other = Tally(), Tally()
    for outcome in OUTCOMES:
        one.count("dm", outcome, f"dm --seed 3 ({outcome})")
    other.count("dm", "right")
    other.count("dc", "hang", "dc --seed 4")
    one.add(other.as_dict())
    assert one.counts["dm"]["right"] == 2
    assert one.faults_of("dc") == ["dc: hang: dc --seed 4"]
    assert len(one.faults_of("dm")) == 6
    assert one.table().splitlines()[-1].split() == ["all", "10", "2", "1", "1", "1", "2", "1", "1", "1"]
    one.write(tmp_path / "tally.json")
    again = Tally()
    again.add(json.loads((tmp_path / "tally.json").read_text()))
    assert again.as_dict() == one.as_dict()


def test_a_fault_without_words_and_an_unknown_outcome_are_refused():
    with pytest.raises(AssertionError, match="in words"):
        Tally().count("dm", "crash")
    with pytest.raises(KeyError):
        Tally().count("dm", "fine")
