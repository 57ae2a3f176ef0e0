"""Damaged files of every kind: taken where that changes nothing, else refused in one line that names them."""

import json
import os
import random
import subprocess
import sys
import time

import fuzz
import fuzz_mutations as mutations
import numpy as np
import pytest
import torch
from fuzz_readers import READERS
from tally import Tally

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="forks, and limits memory")

# Of the short form: what is made, and read, in milliseconds.
_QUICK = [name for name in READERS if not name.startswith(("run", "report", "experts", "settings of", "result"))]


@pytest.mark.full
def test_readers_take_or_refuse_damaged_files(tmp_path):
    """In an interpreter of its own: a fork of one that tests have worked in aborts in a matrix' factorisation."""
    counts = tmp_path / "counts.json"
    command = [sys.executable, fuzz.__file__, "--cases", "30", "--seed", "0", "--json", counts, "--readers", *_QUICK]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    stages = json.loads(counts.read_text())["stages"]
    assert len(stages) == len(_QUICK)
    for stage, outcomes in stages.items():
        assert sum(outcomes.values()) == 30, stage
        assert not {*outcomes} - {"right", "clear error"}, done.stdout


@pytest.mark.campaigns
@pytest.mark.parametrize("name", READERS)
def test_a_reader_for_long(tally, seconds, tmp_path, name):
    seed, first, ends = time.time_ns() % 10**9, 0, time.monotonic() + seconds / 5
    while time.monotonic() < ends:
        fuzz.run(tally, [name], 200, seed, first=first, keep=tmp_path / "failed")
        first += 200
    assert not tally.faults_of(f"fuzz: {name}")


def test_what_failed_is_counted(tmp_path, monkeypatch):
    """The campaign sees each kind of fault; a reader that has them all."""

    def load(folder):
        content = (folder / "x").read_bytes()
        kind = content[-1] % 7 if len(content) > 1 else 0
        if kind == 1:
            raise KeyError("x")
        if kind == 2:
            raise ValueError("'int' object is not iterable")
        if kind == 3:
            os.abort()
        if kind == 4:
            while True:
                pass
        if kind == 5:
            np.ones(1 << 33, np.uint8)
        if kind == 6:
            raise fuzz.Different("x")

    reader = fuzz.Reader(lambda folder: (folder / "x").write_bytes(b"\0"), load)
    monkeypatch.setitem(READERS, "bad", reader)
    monkeypatch.setattr(
        fuzz, "damage", lambda chance, sample, base: ({sample.changed[0]: bytes([0, chance.randrange(7)])}, False)
    )
    tally = Tally()
    fuzz.run(tally, ["bad"], 25, seed=1, seconds=0.1)
    assert set(tally.counts["fuzz: bad"]) == {
        *("right", "traceback", "unclear error", "crash", "hang", "memory", "silent difference"),
    }


@pytest.mark.parametrize("name", ["a.json", "a.npy", "a.pt", "a.csv", "a.png", "a"])
def test_damage_is_a_function_of_its_seed(name):
    content = b'{"a": [1, 2, {"b": "c"}]}\n'
    assert mutations.of_structure(random.Random(3), name, content) == mutations.of_structure(
        random.Random(3), name, content
    )
    changed = {mutations.of_structure(random.Random(seed), name, content) for seed in range(40)}
    assert len(changed) > 10


def test_other_tensors_are_other_tensors():
    given = torch.arange(12.0).view(3, 4)
    for seed in range(200):
        other = mutations.tensor(random.Random(seed), given)
        assert isinstance(other, torch.Tensor)
    assert torch.equal(given, torch.arange(12.0).view(3, 4))
