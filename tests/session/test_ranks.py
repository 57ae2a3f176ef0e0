"""Jobs of torchrun's: the same results on two ranks as in one process, one line for what goes wrong, resumed by one."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastdd import data, session
from fastdd.debias.kde import KdeWeights
from fastdd.session.folder import RunFolder

JOB = Path(__file__).with_name("job.py")
job = SimpleNamespace(**runpy.run_path(str(JOB)))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(*arguments) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [*TORCHRUN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Folders of one process and of two ranks, and what the latter printed."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    process = launch(JOB, two)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        job.work(one)
    finally:
        torch.set_num_threads(threads)
    out, errors = process.communicate(timeout=120)
    assert (two / "told-0.txt").exists(), errors
    return one, two, out, errors


@pytest.mark.parametrize("name", job.RUNS)
def test_two_ranks_distil_the_same_bits(both, name):
    one, two = (folder / name for folder in both[:2])
    assert (one / "synthetic.safetensors").read_bytes() == (two / "synthetic.safetensors").read_bytes()
    losses, shared = (
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)
    )
    assert len(losses) == len(shared) > 0
    np.testing.assert_allclose(shared, losses, rtol=1e-6)
    states = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (one, two)]
    assert states[0]["digest"] == states[1]["digest"]
