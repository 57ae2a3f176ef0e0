"""Peak memory is that of one call, measured where nothing else has left its own."""

import sys

import pytest
import torch

from fastdd.bench.framework import memory, runner, schema
from fastdd.bench.framework.memory import peak_bytes

# A module of its own, which the measuring process can import.
SOURCE = """
import os, torch
from fastdd.bench.framework.case import Case

class Allocates(Case):
    name, about, variant, memory = "allocates", "for tests", {}, True

    def __init__(self, megabytes=50):
        self.megabytes = megabytes

    def inputs(self, seed, device, quick):
        return torch.ones(30 << 18)

    def shape(self, inputs):
        return {}

    def _use(self, inputs, megabytes):
        a = torch.ones(megabytes << 18)
        b = torch.ones(megabytes << 18)  # lives beside the first
        del a
        return inputs[:4] + b[:4]

    def plain(self, inputs):
        return self._use(inputs, 10)

    def fastdd(self, inputs):
        if self.megabytes is None:
            os._exit(1)
        return self._use(inputs, self.megabytes)

    def truth(self, inputs):
        return inputs[:4].double() + 1

    def bytes(self, inputs):
        return 16

    def flops(self, inputs):
        return 4
"""
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def allocates(tmp_path, monkeypatch):
    (tmp_path / "allocating.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    import allocating

    yield allocating.Allocates
    del sys.modules["allocating"]


@needs_linux
def test_the_peak_is_that_of_the_call_alone(allocates):
    (document,) = runner.run([allocates()], torch.device("cpu"), reps=1, budget=0, quick=True, memory=True)
    schema.validate(document, "document")
    assert runner.failed(document) == []
    peaks = {row["backend"]: row["peak_bytes"] for row in document["rows"]}
    assert peaks["fastdd"] == pytest.approx(100 << 20, abs=4 << 20)
    assert peaks["torch"] == pytest.approx(20 << 20, abs=4 << 20)


def test_memory_is_measured_where_it_was_asked_for(allocates):
    case = allocates(1)
    (document,) = runner.run([case], torch.device("cpu"), reps=1, budget=0, quick=True)
    assert {row["peak_bytes"] for row in document["rows"]} == {None}
    case.memory = False
    (document,) = runner.run([case], torch.device("cpu"), reps=1, budget=0, quick=True, memory=True)
    assert {row["peak_bytes"] for row in document["rows"]} == {None}


def test_a_call_that_is_killed_is_an_error_like_others(allocates):
    settings = {"seed": 0, "quick": True, "upstream": None}
    with pytest.raises(RuntimeError, match="terminated abruptly"):
        peak_bytes(allocates(None), "fastdd", None, torch.device("cpu"), **settings)


def test_a_system_that_cannot_tell_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_RESET", str(tmp_path / "no" / "clear_refs"))
    calls = []
    assert memory._resident(lambda: calls.append(1)) is None
    assert calls == [1]


@pytest.mark.gpu
def test_on_a_gpu_it_is_memory_in_tensors():
    device = torch.device("cuda")
    held = torch.ones(30 << 18, device=device)
    assert memory._of_tensors(lambda: held + torch.ones_like(held), device) == 2 * held.nbytes
