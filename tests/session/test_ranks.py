"""Jobs of torchrun's: the same results on two ranks as in one process, one line for what goes wrong, resumed by one."""

import importlib.util
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import Ranks
from shared import once

import fastdd
from fastdd.core import ranks
from fastdd.debias.density.kde import KdeWeights

JOB = Path(__file__).with_name("job.py")
job = SimpleNamespace(**runpy.run_path(str(JOB)))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(*arguments) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [*TORCHRUN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@contextmanager
def one_thread():
    """As torchrun gives every rank."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Folders of one process and of two ranks, and what the latter printed."""

    def make(folder):
        for name in ("one", "two"):
            (folder / name).mkdir()
        job_of_two = Ranks("import torch\ntorch.set_num_threads(1)\n" + JOB.read_text(), folder / "two")
        with one_thread():
            job.work(folder / "one")
        for rank in job_of_two.scripts:
            rank.end()
        (folder / "out").write_text("".join(rank.output for rank in job_of_two.scripts))
        (folder / "errors").write_text(text := "".join(rank.errors for rank in job_of_two.scripts))
        assert (folder / "two" / "told-0.txt").exists(), text

    folder = once(tmp_path_factory, "ranks", make)
    return folder / "one", folder / "two", (folder / "out").read_text(), (folder / "errors").read_text()


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


@pytest.mark.parametrize(("name", "points"), [("dm-fairdd", [0, 2, 4, 5]), ("dc-fairdd", [0, 1, 2])])
def test_two_ranks_find_the_same_figures_on_the_way(both, name, points):
    one, two = ((folder / name / "evaluations.jsonl").read_text() for folder in both[:2])
    assert one == two
    assert [json.loads(line)["iteration"] for line in two.splitlines()] == points


def test_two_ranks_train_the_same_experts(both):
    one, two = (folder / "experts" for folder in both[:2])
    assert (one / "trajectories.npy").read_bytes() == (two / "trajectories.npy").read_bytes()
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (one, two)]
    for manifest in manifests:
        for entry in manifest["experts"]:
            del entry["seconds"]
    assert manifests[0] == manifests[1]
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}


def test_two_ranks_count_the_same_and_both_have_all(both):
    one, two, _, _ = both
    counts = [
        torch.load(path, weights_only=True) for path in (one / "counts-0.pt", two / "counts-0.pt", two / "counts-1.pt")
    ]
    assert len(counts[0]) == 3
    for other in counts[1:]:
        assert all(torch.equal(a, b) for pair in zip(counts[0], other, strict=True) for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize("name", ["class", "batch", "dataset"])
def test_two_ranks_weigh_with_the_same_bits(both, name):
    one, two = (folder / f"{name}.safetensors" for folder in both[:2])
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs FAISS")
def test_two_ranks_share_a_search_for_neighbours(both):
    alone, shared = (KdeWeights.load(folder / "knn.safetensors") for folder in both[:2])
    np.testing.assert_allclose(shared.log_density, alone.log_density, rtol=0, atol=4e-6)
    np.testing.assert_allclose(shared.weights, alone.weights, rtol=0, atol=1e-6)
    assert shared.metadata["gap"] == pytest.approx(alone.metadata["gap"], abs=1e-5)


def test_all_ranks_are_refused_alike(both):
    told = [(both[1] / f"told-{rank}.txt").read_text().splitlines() for rank in range(2)]
    assert told[0] == told[1]
    words = ["do not ask for the same thing", "leave out --processes"]
    words += ["mtt distils in one process", "ncfm distils in one process", "has 'stray'", "could not be broadcast"]
    for line, expected in zip(told[0], words, strict=False):
        assert line.startswith("ValueError: ")
        assert expected in line


def test_a_stop_asked_of_one_rank_is_agreed_on(both):
    told = (both[1] / "told-0.txt").read_text().splitlines()[-1]
    steps = torch.load(both[1] / "stopped" / "checkpoint.pt", weights_only=True)["step"]
    assert told == f"KeyboardInterrupt: stopped after {steps:,} of 1,000,000 steps; --resume continues"
    lines = (both[1] / "stopped" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(steps))


def test_commands_print_once(both):
    _, _, out, errors = both
    assert out.count("c-digits, test set, %") == 1
    assert errors.count("error: IPC must be at least 1, not 0") == 1


def test_a_killed_rank_ends_the_job_and_one_rank_goes_on(tmp_path):
    # More steps than it can do before it is killed; the resumed run is to do fewer.
    options = [f"--{name.replace('_', '-')}={value}" for name, value in job.SMALL.items()]
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = launch(
        *("-m", "fastdd", "distill", "--dataset", "c-digits", *options),
        *("--iterations", 10**6, "--checkpoint-seconds", 0, "--out", run),
    )
    while not (run / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(max(map(int, children)), signal.SIGKILL)
    killed = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - killed < 10
    assert errors.count("another rank of this job has ended") == 1
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [f"error: {ranks.RankLost()}"]

    done = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    data = fastdd.data.load("c-digits")
    with one_thread():
        made, alone = (
            fastdd.distill(data, out=out, resume=True, iterations=done + 3, **job.SMALL) for out in (run, whole)
        )
    assert torch.equal(made.images, alone.images)
    assert (run / "synthetic.safetensors").read_bytes() == (whole / "synthetic.safetensors").read_bytes()
