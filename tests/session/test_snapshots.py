"""Snapshots of a run: the bits of its checkpoints, no bit of the run changed, none lost or made up by a kill."""

import time

import pytest
import torch
from forked import Script
from PIL import Image

import fastdd
from fastdd.data import SyntheticSet
from fastdd.data.initial import random_set
from fastdd.session import snapshot_files, snapshot_iterations
from fastdd.session.callbacks import Callback

SMALL = {"ipc": 1, "batch_real": 8, "width": 4, "depth": 1, "device": "cpu"}
LOOPS = {"method": "dc", "outer_loop": 2, "inner_loop": 1}


@pytest.fixture(scope="module")
def digits():
    return fastdd.data.load("c-digits")


class Checkpointed(Callback):
    """The images of every checkpoint, by iteration."""

    def __init__(self):
        self.images = {}

    def checkpoint(self, run):
        if run.step % run.steps_per_iteration == 0:
            self.images[run.iteration] = run.method.state()["images"].clone()


def contents(run):
    return {iteration: file.read_bytes() for iteration, file in snapshot_files(run)}


@pytest.mark.parametrize("settings", [{"debias": "fairdd", "iterations": 9}, {**LOOPS, "iterations": 3}])
def test_they_have_the_bits_of_checkpoints_and_change_nothing(digits, tmp_path, settings):
    seen = Checkpointed()
    plain = fastdd.distill(digits, out=tmp_path / "plain", **settings, **SMALL)
    made = fastdd.distill(digits, out=tmp_path / "run", snapshots=4, callbacks=[seen], **settings, **SMALL)
    assert torch.equal(plain.images, made.images)
    assert (tmp_path / "plain/metrics.jsonl").read_bytes() == (tmp_path / "run/metrics.jsonl").read_bytes()
    assert not snapshot_files(tmp_path / "plain")
    kept = {iteration: SyntheticSet.load(file) for iteration, file in snapshot_files(tmp_path / "run")}
    assert list(kept) == snapshot_iterations(settings["iterations"], 4)
    assert torch.equal(kept[0].images, random_set(digits, 1).images)
    for iteration in list(kept)[1:]:
        assert torch.equal(kept[iteration].images, seen.images[iteration].view_as(made.images))
    assert contents(tmp_path / "run")[settings["iterations"]] == (tmp_path / "run/synthetic.safetensors").read_bytes()
    with Image.open(tmp_path / "run/snapshots.png") as picture:
        assert picture.size == (len(kept) * 66 + 2, 16 + 10 * 66 + 2)


SCRIPT = """
import sys
from fastdd import api, data
api.distill(data.load("c-digits"), out=sys.argv[1], resume=True, ipc=1, iterations=60, width=4, depth=1, batch_real=8,
            device="cpu", checkpoint_seconds=0.01, snapshots=12)
"""


def test_kills_change_no_snapshot(digits, tmp_path):
    for files, delay in ((2, 0.0), (6, 0.02)):
        script = Script(SCRIPT, tmp_path / "killed")
        script.wait_until(lambda files=files: len(snapshot_files(tmp_path / "killed")) >= files)
        time.sleep(delay)
        script.kill()
    Script(SCRIPT, tmp_path / "killed").succeed()
    fastdd.distill(digits, out=tmp_path / "whole", snapshots=12, iterations=60, **SMALL)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_a_kill_took_is_made_again_where_the_run_goes_on(digits, tmp_path):
    run = tmp_path / "run"
    fastdd.distill(digits, out=run, snapshots=3, iterations=4, **SMALL)
    before = contents(run)
    snapshot_files(run)[-1][1].unlink()  # killed after the last checkpoint
    fastdd.distill(digits, out=run, resume=True, snapshots=3, iterations=4, **SMALL)
    assert contents(run) == before
    longer = fastdd.distill(digits, out=run, resume=True, snapshots=3, iterations=6, **SMALL)
    assert {**contents(run), **before} == contents(run)
    assert torch.equal(SyntheticSet.load(snapshot_files(run)[-1][1]).images, longer.images)


def test_what_can_not_be_is_told_before_the_work(digits, tmp_path):
    with pytest.raises(ValueError, match=r"^snapshots must be at least 2, the first images and the last, not 1$"):
        fastdd.distill(digits, out=tmp_path / "run", snapshots=1, iterations=4, **SMALL)
    with pytest.raises(ValueError, match=r"^snapshots are files of the run's folder: give out too$"):
        fastdd.distill(digits, snapshots=3, iterations=4, **SMALL)
    assert not (tmp_path / "run").exists()
