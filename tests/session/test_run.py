"""Runs: reproducible, resumable bit for bit after kills at any moment, never half a file, clear refusals."""

import dataclasses
import errno
import json
import os
import random
import signal
import sys
import time

import numpy as np
import pytest
import torch
from forked import Script

from fastdd import session
from fastdd.data import Dataset, Split, SyntheticSet, Zca, load
from fastdd.data.initial import random_set
from fastdd.methods import configure
from fastdd.methods.dc import Dc
from fastdd.session import Report
from fastdd.session.folder import METRICS, RunFolder, read_config


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


def config(**settings):
    return configure(
        **{"dataset": "c-digits", "ipc": 2, "iterations": 6, "batch_real": 16, "width": 8, "depth": 2, **settings}
    )


def test_same_seed_same_bits_other_seed_other_set(digits):
    first, again = (session.run(config(debias="fairdd"), digits) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert first.labels.tolist() == [c for c in range(10) for _ in range(2)]
    assert not torch.equal(first.images, session.run(config(debias="fairdd", seed=1), digits).images)
    assert not torch.equal(first.images, session.run(config(), digits).images)


def test_global_generators_do_not_matter(digits):
    torch.manual_seed(1)
    first = session.run(config(), digits)
    torch.manual_seed(2)
    np.random.seed(5)  # noqa: NPY002
    random.seed(3)
    state = torch.get_rng_state()
    assert torch.equal(first.images, session.run(config(), digits).images)
    assert torch.equal(state, torch.get_rng_state())


def test_starts_from_real_images_or_noise(digits):
    start = random_set(digits, 2)
    pixels = torch.from_numpy(digits.train.images).float() / 127.5 - 1
    for image, label in zip(start.images, start.labels, strict=True):
        rows = ((pixels - image).abs().amax((1, 2, 3)) < 1e-6).nonzero()[:, 0]
        assert label in torch.from_numpy(digits.train.labels)[rows]
    frozen = session.run(config(iterations=1, lr_img=1e-30), digits)
    assert torch.allclose(frozen.images, start.images)
    noise = session.run(config(iterations=1, lr_img=1e-30, init="noise"), digits)
    assert abs(noise.images.mean()) < 0.05
    assert abs(noise.images.std() - 1) < 0.05


def test_balanced_starts_from_as_many_real_images_of_every_group():
    data = load("c-digits", bias_ratio=0.5)
    pixels = torch.from_numpy(data.train.images).float() / 127.5 - 1

    def rows(ipc, groups=None):
        frozen = {"ipc": ipc, "iterations": 1, "lr_img": 1e-30, "init": "balanced"}
        made = session.run(config(debias="fairdd", **frozen), data, groups=groups).images
        nearest = torch.stack([(pixels - image).abs().amax((1, 2, 3)).argmin() for image in made])
        assert torch.allclose(made, pixels[nearest])
        return nearest.numpy()

    start = rows(20)
    cells = data.train.labels[start] * 10 + data.train.groups[start]
    assert np.bincount(cells).tolist() == [2] * 100
    # Groups that the run is given in their place are what is balanced.
    halves = rows(2, np.arange(len(data.train)) % 2)
    assert (halves % 2).reshape(10, 2).sum(1).tolist() == [1] * 10


def test_whitened_random_images_are_the_same_images(digits):
    zca = Zca.fit(digits.train.images)
    plain, whitened = random_set(digits, 2, 3), random_set(digits, 2, 3, zca)
    assert torch.equal(whitened.to_uint8(), plain.to_uint8())
    assert torch.equal(whitened.images, zca.whiten(plain.to_uint8().numpy()))
    assert torch.equal(whitened.labels, plain.labels)
    assert whitened.zca is zca
    assert (whitened.metadata["mean"], whitened.metadata["std"]) == ([0, 0, 0], [1, 1, 1])
    with pytest.raises(ValueError, match="have 768 values each, ZCA was fitted on 3"):
        random_set(digits, 2, zca=Zca(torch.zeros(3), torch.eye(3)))


@pytest.mark.parametrize("sampling", ["random", "stratified"])
def test_loss_falls(digits, sampling, tmp_path):
    session.run(config(iterations=60, debias="fairdd", sampling=sampling), digits, out=tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # Every step has another network, so single losses are noisy; the means fall by a quarter and more.
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])


def test_run_folder_and_metadata(digits, tmp_path):
    made = session.run(config(debias="fairdd"), digits, out=tmp_path)
    assert {"config.yaml", "metrics.jsonl", "checkpoint.pt", "synthetic.safetensors"} <= set(os.listdir(tmp_path))
    read = SyntheticSet.load(tmp_path / "synthetic.safetensors")
    assert torch.equal(read.images, made.images)
    assert read.metadata["mean"] == [0.5, 0.5, 0.5]
    assert read.metadata["debias"] == "fairdd"
    assert read.metadata["run"]["iterations"] == 6
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(6))


SCRIPT = """
import sys
from pathlib import Path
from fastdd import session
from fastdd.data import load
from fastdd.methods import configure
config = configure(dataset="c-digits", ipc=2, iterations=60, batch_real=4, width=8, depth=2,
                                   debias="fairdd")
data = load("c-digits")
print("ready", flush=True)
session.run(config, data, out=sys.argv[1], resume=True, checkpoint_seconds=0)
"""


def test_ten_kills_at_random_moments_lose_nothing(tmp_path):
    whole = tmp_path / "whole"
    Script(SCRIPT, whole).succeed()
    killed = tmp_path / "killed"
    metrics = killed / "metrics.jsonl"
    rng = random.Random(0)
    resumed_from = set()
    # Ten steps spread over the run, and a random moment within or after each; the first may be before any step.
    for target in sorted(rng.sample(range(55), 10)):
        script = Script(SCRIPT, killed)
        script.wait_for_lines(1)
        script.wait_until(
            lambda done=target: done == 0 or (metrics.exists() and metrics.read_bytes().count(b"\n") >= done)
        )
        time.sleep(rng.uniform(0.0, 0.02))
        script.kill()
        # Whatever the moment: every file that is there is whole.
        for checkpoint in killed.glob("checkpoint*.pt"):
            resumed_from.add(torch.load(checkpoint, weights_only=True)["step"])
        if metrics.exists():
            for line in metrics.read_text().splitlines():
                json.loads(line)
    Script(SCRIPT, killed).succeed()
    assert len(resumed_from) >= 5
    name = "synthetic.safetensors"
    assert (killed / name).read_bytes() == (whole / name).read_bytes()
    steps = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert not list(killed.glob(".*.partial"))


def gradient_config(method="dsa", **settings):
    return config(method=method, **{"iterations": 2, "outer_loop": 3, "inner_loop": 2, "debias": "fairdd", **settings})


@pytest.mark.parametrize("arch", ["ConvNet", "ConvNetBN"])
@pytest.mark.parametrize("done", [1, 3, 5])
def test_gradient_matching_stopped_within_an_iteration_resumes_to_the_same_bits(
    digits, tmp_path, monkeypatch, arch, done
):
    """The network, trained between the steps of an iteration, is part of the checkpoint."""
    settings = gradient_config(arch=arch, batch_real=4)
    whole = session.run(settings, digits)
    own_step = Dc.step

    def step(self, number):
        if number == done:
            raise KeyboardInterrupt
        return own_step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Dc, "step", step)
        with pytest.raises(KeyboardInterrupt):
            session.run(settings, digits, out=tmp_path, checkpoint_seconds=0)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == done
    assert torch.equal(session.run(settings, digits, out=tmp_path, resume=True).images, whole.images)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == list(range(6))


def test_the_network_is_trained_between_matching_steps(digits):
    """With two steps an iteration, the second one's loss depends on the training before it."""
    settings = [gradient_config(iterations=1, outer_loop=2, inner_loop=loop) for loop in (0, 5)]
    assert not torch.equal(*(session.run(of_loop, digits).images for of_loop in settings))
    single = [gradient_config(iterations=1, outer_loop=1, inner_loop=loop) for loop in (0, 5)]
    assert torch.equal(*(session.run(of_loop, digits).images for of_loop in single))


@pytest.mark.parametrize(("method", "debias"), [("dc", "none"), ("dsa", "fairdd")])
def test_gradient_matching_reduces_its_loss(digits, method, debias, tmp_path):
    """Over iterations of one step each, whose networks are not trained and so comparable."""
    settings = gradient_config(
        method, iterations=30, outer_loop=1, inner_loop=0, lr_img=1.0, init="noise", batch_real=6
    )
    session.run(settings, digits, out=tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").open()]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_weights_decide_what_is_matched(digits):
    """All weight on bias-conflicting images: the same set as from these images alone."""
    conflicting = digits.train.groups != digits.train.labels
    weights = conflicting / conflicting.sum()
    made = session.run(config(debias="kde", init="noise"), digits, weights=weights)
    alone = Split(*(values[conflicting] for values in (digits.train.images, digits.train.labels, digits.train.groups)))
    expected = session.run(config(init="noise"), dataclasses.replace(digits, train=alone))
    torch.testing.assert_close(made.images, expected.images)
    assert (made.images - session.run(config(init="noise"), digits).images).abs().max() > 0.1
    weighted = session.run(config(debias="kde", init="noise", sampling="weighted"), digits, weights=weights)
    assert not torch.equal(made.images, weighted.images)


def test_weights_and_their_mode_belong_together(digits):
    weights = np.ones(len(digits.train.labels))
    with pytest.raises(ValueError, match="debias=kde takes weights of the training images"):
        session.run(config(debias="kde"), digits)
    with pytest.raises(ValueError, match="debias=none takes no weights"):
        session.run(config(), digits, weights=weights)
    with pytest.raises(ValueError, match=r"weights must be \[1297\]"):
        session.run(config(debias="kde"), digits, weights=weights[1:])


def test_weights_and_groups_are_part_of_a_run(digits, tmp_path):
    groups = np.arange(len(digits.train.labels)) % 3
    first = session.run(config(debias="fairdd"), digits, out=tmp_path, groups=groups)
    assert not torch.equal(first.images, session.run(config(debias="fairdd"), digits).images)
    with pytest.raises(ValueError, match="or other weights, groups or first images"):
        session.run(config(debias="fairdd"), digits, out=tmp_path, resume=True)
    for wrong in (groups[1:], groups.astype(np.int32), groups - 1):
        with pytest.raises(ValueError, match="groups must be int64"):
            session.run(config(debias="fairdd"), digits, groups=wrong)


def test_more_iterations_extend_a_run_exactly(digits, tmp_path):
    session.run(config(iterations=3), digits, out=tmp_path)
    longer = session.run(config(iterations=6), digits, out=tmp_path, resume=True)
    assert torch.equal(longer.images, session.run(config(iterations=6), digits).images)
    with pytest.raises(ValueError, match="has done 6 iterations, more than the 4 asked for"):
        session.run(config(iterations=4), digits, out=tmp_path, resume=True)
    # What is refused leaves the folder as it was.
    assert read_config(tmp_path / "config.yaml")["run"] == config(iterations=6).model_dump()


def test_damaged_checkpoint_falls_back_to_the_one_before(digits, tmp_path):
    session.run(config(iterations=3), digits, out=tmp_path, checkpoint_seconds=0)
    checkpoint = tmp_path / "checkpoint.pt"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 0xFF
    checkpoint.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=r"checkpoint\.pt is damaged and is not used"):
        resumed = session.run(config(iterations=6), digits, out=tmp_path, resume=True)
    assert torch.equal(resumed.images, session.run(config(iterations=6), digits).images)


def test_all_checkpoints_damaged(digits, tmp_path):
    session.run(config(iterations=3), digits, out=tmp_path, checkpoint_seconds=0)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    with (
        pytest.warns(RuntimeWarning, match="damaged"),
        pytest.raises(RuntimeError, match=r"all checkpoints in .* are damaged"),
    ):
        session.run(config(iterations=6), digits, out=tmp_path, resume=True)


def test_folder_of_another_run_is_refused(digits, tmp_path):
    session.run(config(), digits, out=tmp_path)
    with pytest.raises(ValueError, match="already holds a run; continue it with --resume"):
        session.run(config(), digits, out=tmp_path)
    with pytest.raises(ValueError, match="holds a run with debias=none, not fairdd"):
        session.run(config(debias="fairdd"), digits, out=tmp_path, resume=True)
    other = load("c-digits", bias_ratio=0.5)
    with pytest.raises(ValueError, match="holds a run on other data"):
        session.run(config(), other, out=tmp_path, resume=True)


def test_a_run_killed_in_its_first_file_is_resumed(digits, tmp_path):
    for name in (".config.yaml.x1y2z3.partial", ".weights.safetensors.x1y2z3.partial", ".lock"):
        (tmp_path / name).touch()
    session.run(config(), digits, out=tmp_path, resume=True)
    assert not list(tmp_path.glob(".*.partial"))


def test_folder_of_something_else_is_refused(digits, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"is not empty and holds no run \(it has 'thesis\.tex'\)"):
        session.run(config(), digits, out=tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_one_process_a_folder(tmp_path):
    held = RunFolder(tmp_path, config(), "digest", resume=False, size=1)
    with pytest.raises(OSError, match="another process is running in"):
        RunFolder(tmp_path, config(), "digest", resume=True, size=1)
    del held


def test_unwritable_out(digits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot create the run folder"):
        session.run(config(), digits, out=tmp_path / "file" / "run")


def test_full_disk_before_the_start(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match=r"KiB free; the run needs .* KiB: make room"):
        session.run(config(), digits, out=tmp_path)


def test_disk_full_midway_keeps_the_last_checkpoint(digits, tmp_path, monkeypatch):
    session.run(config(iterations=3), digits, out=tmp_path)
    real_fsync = os.fsync

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        session.run(config(iterations=6), digits, out=tmp_path, resume=True)
    monkeypatch.setattr(os, "fsync", real_fsync)
    resumed = session.run(config(iterations=6), digits, out=tmp_path, resume=True)
    assert torch.equal(resumed.images, session.run(config(iterations=6), digits).images)


def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(digits, tmp_path):
    session.run(config(iterations=2), digits, out=tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(RuntimeError, match=r"step \d+: the (loss is|images reach) .*; lower lr_img \(1e\+38\)"):
        session.run(config(lr_img=1e38, iterations=8), digits, out=tmp_path / "other", checkpoint_seconds=0)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_sigterm_leaves_a_checkpoint(digits, tmp_path):
    def stop(now):
        if now.step >= 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="stopped after"):
        session.run(config(iterations=100_000), digits, out=tmp_path, callbacks=[Report(stop)])
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert content["step"] >= 2


@pytest.fixture
def unequal():
    """Classes of 3 and 2 images, which are all of one value each."""
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((1, 1, 8, 8), 50, np.uint8)
    split = Split(images, np.array([0, 1, 0, 1, 0]), np.array([0, 0, 1, 1, 1]))
    return Dataset("tiny", split, split, ("many", "few"), ("a", "b"), (0.5,), (0.25,), {})


@pytest.mark.parametrize("init", ["real", "balanced"])
@pytest.mark.parametrize("method", ["dm", "dc"])
def test_a_class_smaller_than_the_ipc_gives_all_it_has_and_the_rest_is_noise(unequal, init, method):
    settings = config(ipc=3, iterations=1, lr_img=1e-30, init=init, method=method, depth=1, debias="fairdd")
    with pytest.warns(RuntimeWarning) as told:
        made = session.run(settings, unequal)
    assert any("fewer training images than IPC 3: 'few' has 2; the rest" in str(one.message) for one in told)
    # Real images are flat: the two of class 'few' come first, in any order, and what is behind them is normal.
    assert sorted(made.to_uint8()[3:5, 0, 0, 0].tolist()) == [50, 150]
    assert [bool((image == image[0, 0, 0]).all()) for image in made.images] == [True] * 5 + [False]
    noise = session.run(settings.model_copy(update={"init": "noise"}), unequal).images
    assert torch.equal(made.images[5], noise[5])


def test_noise_needs_no_real_images(unequal, recwarn):
    made = session.run(config(ipc=20, iterations=1, init="noise", depth=1), unequal)
    assert made.labels.tolist() == [0] * 20 + [1] * 20
    assert not [one for one in recwarn if "training images" in str(one.message)]


def test_an_ipc_that_no_class_has_images_for_and_a_class_without_any_are_refused(unequal):
    with pytest.raises(ValueError, match="IPC 4 is larger than every class of tiny, the largest of which has 3 trai"):
        session.run(config(ipc=4), unequal)
    nothing = dataclasses.replace(unequal, class_names=("many", "few", "none"))
    for init in ("real", "noise"):
        with pytest.raises(ValueError, match="class 'none' of tiny has no training images"):
            session.run(config(ipc=1, init=init), nothing)
    with pytest.raises(ValueError, match="IPC 3 is larger than class 'few' of tiny, which has 2 training images"):
        random_set(unequal, 3)


@pytest.mark.gpu
def test_gpu_runs_are_reproducible_and_close_to_the_cpu(digits):
    settings = config(debias="fairdd", iterations=3)
    first, again = (session.run(settings, digits, device="cuda") for _ in range(2))
    assert torch.equal(first.images, again.images)
    start = random_set(digits, 2).images
    moved = session.run(settings, digits).images - start
    assert (first.images - start - moved).norm() <= 1e-3 * moved.norm()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX resource limits")
def test_metrics_that_do_not_fit_leave_no_half_line(tmp_path):
    import resource

    folder = RunFolder(tmp_path, config(), "digest", resume=False, size=1)
    folder.log(METRICS, [{"step": 0, "loss": 1.0}])
    before = (tmp_path / "metrics.jsonl").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))  # as on a disk that fills within the line
    try:
        with pytest.raises(OSError, match=r"cannot write .*metrics\.jsonl"):
            folder.log(METRICS, [{"step": 1, "loss": 2.0}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
