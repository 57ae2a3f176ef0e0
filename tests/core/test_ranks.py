"""Shares of work, and a process of its own; jobs of several ranks are in tests/session/test_ranks.py."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastdd.api import pick_device
from fastdd.core import ranks
from fastdd.core.messages import Messages


def dearest(costs, ranges):
    return max(sum(costs[own.start : own.stop]) for own in ranges)


@given(st.lists(st.integers(0, 50), max_size=9), st.integers(1, 5))
def test_shares_are_contiguous_whole_and_as_even_as_can_be(costs, parts):
    made = ranks.share(costs, parts)
    assert len(made) == parts
    assert [row for own in made for row in own] == list(range(len(costs)))
    if len(costs) >= parts:
        assert all(made)
    cuts = itertools.combinations_with_replacement(range(len(costs) + 1), parts - 1)
    best = min(dearest(costs, [range(a, b) for a, b in itertools.pairwise([0, *cut, len(costs)])]) for cut in cuts)
    assert dearest(costs, made) <= best * (1 + 1e-9)


def test_a_process_of_its_own_is_a_job_of_one_rank():
    rows = torch.arange(4.0)
    assert (ranks.world(), ranks.rank(), ranks.launched()) == (1, 0, False)
    assert ranks.exchange("mine") == ["mine"]
    assert ranks.first(lambda: 7) == 7
    ranks.collect(rows, [range(4)])
    ranks.meet()
    ranks.agree("anything", object())
    assert rows.tolist() == [0, 1, 2, 3]
    messages = Messages()
    messages.send({"epoch": 1})
    messages.ask_to_stop()
    assert list(messages.received()) == [{"epoch": 1}]
    assert not messages.stop_asked()
    with pytest.raises(ZeroDivisionError):
        ranks.first(lambda: 1 / 0)
    assert not torch.distributed.is_initialized()


def test_torchrun_names_ranks_in_the_environment(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert ranks.launched()
    assert (ranks.rank(), ranks.world(), ranks.local_rank()) == (2, 3, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not ranks.launched()


@pytest.mark.parametrize(
    ("name", "there", "message"),
    [("cuda:1", 2, "each of the 2 ranks takes its own"), ("auto", 1, "has 1 GPU, fewer than ranks")],
)
def test_ranks_need_gpus_of_their_own(monkeypatch, name, there, message):
    for variable, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises((ValueError, RuntimeError), match=message):
        pick_device(name)
