"""Experts: the same bits after any kill and over any number of processes, debiased by weights, clear refusals."""

import contextlib
import json
import math
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forked import Script
from shared import once

from fastdd import models
from fastdd.core import files, rng
from fastdd.data import DeviceImages, Zca, load
from fastdd.debias.loss_weights import loss_weights
from fastdd.evaluation import count_right
from fastdd.experts import ExpertSettings
from fastdd.experts import trainer as expert_training
from fastdd.experts import training as experts
from fastdd.experts import workers as expert_workers
from fastdd.experts.store import Experts, TrajectoryFile
from fastdd.methods.parts.training import train_epoch
from fastdd.presets import preset


@pytest.fixture(scope="module")
def digits():
    data = load("c-digits")
    return replace(data, train=data.train.take(np.arange(120)), test=data.test.take(np.arange(60)))


def config(**settings):
    tiny = {"num_experts": 2, "epochs": 4, "width": 4, "batch_train": 32, "eval_every": 2, "debias": "fairdd"}
    return ExpertSettings.configure(**{"dataset": "c-digits", **tiny, **settings})


def train(digits, out, **more):
    settings = {name: more.pop(name) for name in list(more) if name in ExpertSettings.model_fields}
    return experts.train_experts(config(**settings), digits, out=out, **more)


def content(folder):
    """The stored bytes, and what the manifest says of every expert but its seconds."""
    entries = json.loads((folder / "manifest.json").read_text())["experts"]
    return (folder / "trajectories.npy").read_bytes(), [(e["sha256"], e["evaluations"]) for e in entries]


def test_epochs_are_those_of_plain_training(digits, tmp_path):
    trained = train(digits, tmp_path, dsa_strategy="none")
    assert trained.values.shape == (2, 5, trained.parameters)
    net = models.build("ConvNet", 3, 10, (16, 16), width=4, depth=2)
    images = DeviceImages.of(digits.train.images, digits.mean, digits.std)
    labels = torch.from_numpy(digits.train.labels)
    weights = torch.from_numpy(loss_weights("fairdd", digits.train.labels, digits.train.groups))
    for expert in range(2):
        models.ParameterInit(net).fill(rng.key(0, "expert-net", expert))
        flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
        assert torch.equal(trained.at(expert, 0), flat)
        for epoch in range(4):
            order = rng.permutation(rng.key(0, "expert", expert, epoch), len(labels))
            for rows in order.split(32):
                losses = F.cross_entropy(net(images.read(rows)), labels[rows], reduction="none")
                gradients = torch.autograd.grad((weights[rows] * losses).mean(), list(net.parameters()))
                with torch.no_grad():
                    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                        parameter.add_(gradient, alpha=-0.01)
            flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
            assert torch.equal(trained.at(expert, epoch + 1), flat)


def test_evaluations_are_of_the_stored_epochs(digits, tmp_path):
    trained = train(digits, tmp_path, epochs=5)
    net = models.build("ConvNet", 3, 10, (16, 16), width=4, depth=2)
    test = DeviceImages.of(digits.test.images, digits.mean, digits.std)
    labels, groups = torch.from_numpy(digits.test.labels), torch.from_numpy(digits.test.groups)
    for expert, entry in enumerate(trained.manifest["experts"]):
        assert [evaluation["epoch"] for evaluation in entry["evaluations"]] == [2, 4, 5]
        for evaluation in entry["evaluations"]:
            torch.nn.utils.vector_to_parameters(trained.at(expert, evaluation["epoch"]), net.parameters())
            expected = count_right(net, test, labels, groups, digits).metrics()
            for name in ("accuracy", "deo_m", "deo_a", "wa", "ba"):
                assert evaluation[name] == getattr(expected, name)
    assert trained.damaged() == []


def test_evaluation_does_not_change_the_trajectories(digits, tmp_path):
    often, never = (train(digits, tmp_path / str(every), eval_every=every, arch="ConvNetBN") for every in (1, 0))
    assert torch.equal(often.values, never.values)
    assert [entry["evaluations"] for entry in never.manifest["experts"]] == [[], []]


def test_experts_do_not_depend_on_their_number(digits, tmp_path):
    two, three = (train(digits, tmp_path / str(n), num_experts=n) for n in (2, 3))
    assert torch.equal(two.values, three.values[:2])
    other = train(digits, tmp_path / "seed", num_experts=1, seed=1)
    assert not torch.equal(other.values[0, 0], two.values[0, 0])


EPOCHS = 10
SCRIPT = f"""
import sys
from dataclasses import replace
import numpy as np
import torch
from fastdd import experts
from fastdd.data import load
from fastdd.experts import ExpertSettings
torch.set_num_threads(int(sys.argv[3]))
data = load("c-digits")
data = replace(data, train=data.train.take(np.arange(120)), test=data.test.take(np.arange(60)))
config = ExpertSettings.configure(dataset="c-digits", num_experts=3, epochs={EPOCHS}, width=4, batch_train=32,
                                      debias="fairdd", arch="ConvNetBN", momentum=0.9, weight_decay=1e-4, decay=True,
                                      eval_every=3)
print("ready", flush=True)
experts.train_experts(config, data, out=sys.argv[1], resume=True, processes=int(sys.argv[2]))
"""


def start(out: Path, processes: int = 1, threads: int = 1) -> Script:
    return Script(SCRIPT, out, processes, threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted training in one process of one thread stores."""
    return content(once(tmp_path_factory, "experts", lambda out: start(out).succeed()))


def epochs_done(folder: Path) -> int:
    """Epochs of the experts that are done, and of the states that are there."""
    done = 0
    if (folder / "manifest.json").exists():
        done += sum(EPOCHS for entry in json.loads((folder / "manifest.json").read_text())["experts"] if entry)
    for state in folder.glob("expert-*.pt"):
        with contextlib.suppress(FileNotFoundError):  # it may be finished, and gone, by now
            done += torch.load(state, weights_only=True)["epoch"]
    return done


def test_kills_at_random_moments_lose_nothing(whole, tmp_path):
    """Batch norm, momentum and a decaying learning rate: everything that a network's parameters do not tell."""
    killed = tmp_path / "killed"
    draw = random.Random(0)
    seen = set()
    for target in sorted(draw.sample(range(3 * EPOCHS - 3), 3)):
        script = start(killed)
        script.wait_for_lines(1)
        script.wait_until(lambda epochs=target: epochs_done(killed) >= epochs)
        time.sleep(draw.uniform(0.0, 0.02))
        script.kill()
        seen.add(epochs_done(killed))
        if (killed / "manifest.json").exists():
            with pytest.raises(RuntimeError, match=r"holds \d of 3 experts; finish it .*--resume"):
                Experts.open(killed)
    assert len(seen) >= 2
    start(killed).succeed()
    assert content(killed) == whole
    assert {path.name for path in killed.iterdir()} == {".lock", "manifest.json", "trajectories.npy"}


def test_two_processes_of_one_thread_equal_one(whole, tmp_path):
    """Also when the parent is killed on the way, they are started again, stopped by SIGTERM, and one ends it."""
    killed = tmp_path / "two"
    script = start(killed, processes=2, threads=2)
    script.wait_until(lambda: epochs_done(killed) >= EPOCHS // 2)
    script.kill()
    time.sleep(0.5)
    after = epochs_done(killed)
    time.sleep(0.3)
    assert epochs_done(killed) == after  # nobody goes on without a parent
    script = start(killed, processes=2, threads=2)
    script.wait_until(lambda: epochs_done(killed) >= after + 3)
    script.send(signal.SIGTERM)
    assert script.end(timeout=60) == 1
    assert "KeyboardInterrupt: stopped after" in script.errors
    assert epochs_done(killed) < 3 * EPOCHS
    start(killed).succeed()
    assert content(killed) == whole


@pytest.mark.full
def test_two_processes_that_end_by_themselves_equal_one(whole, tmp_path):
    start(tmp_path / "two", processes=2, threads=2).succeed()
    assert content(tmp_path / "two") == whole


def test_a_worker_that_dies_ends_the_training(digits, tmp_path, monkeypatch):
    def kill(*arguments, **keywords):
        worker = original(*arguments, **keywords)
        worker.process.kill()
        return worker

    original = expert_workers._Worker
    monkeypatch.setattr(expert_workers, "_Worker", kill)
    with pytest.raises(RuntimeError, match=r"experts \d was ended by SIGKILL; if the memory .*--resume"):
        train(digits, tmp_path / "a", processes=2)
    monkeypatch.setattr(expert_workers, "_Worker", original)
    monkeypatch.setattr(expert_workers, "_COMMAND", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match=r"was ended with exit code 3; continue with --resume"):
        train(digits, tmp_path / "b", processes=2)


def test_what_a_worker_refuses_is_said_in_one_line(digits, tmp_path):
    with pytest.raises(RuntimeError, match=r"expert \d diverged in epoch \d .* lower lr_teacher \(1e\+20\)"):
        train(digits, tmp_path, lr_teacher=1e20, processes=2)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.full)])
def test_experts_that_do_not_move_are_told(digits, tmp_path, processes):
    with pytest.warns(RuntimeWarning, match=r"2 of 2 experts end where they start.*; raise lr_teacher \(1e-30\)"):
        train(digits, tmp_path, lr_teacher=1e-30, epochs=1, eval_every=0, processes=processes)


def test_a_full_training_is_not_done_again(digits, tmp_path, monkeypatch):
    train(digits, tmp_path)
    before = content(tmp_path)
    monkeypatch.setattr(experts, "SideBySideTrainer", None)
    assert train(digits, tmp_path, resume=True).number == 2
    assert content(tmp_path) == before


def test_experts_killed_in_their_first_file_are_resumed(digits, tmp_path):
    for name in (".manifest.json.x1y2z3.partial", ".groups.npy.x1y2z3.partial", ".lock"):
        (tmp_path / name).touch()
    assert train(digits, tmp_path, resume=True).number == 2
    assert not list(tmp_path.glob(".*.partial"))


def test_resume_refuses_other_settings_and_data(digits, tmp_path):
    train(digits, tmp_path)
    with pytest.raises(ValueError, match="already holds experts; continue them with --resume"):
        train(digits, tmp_path)
    for setting, value in {"seed": 1, "epochs": 5, "num_experts": 3, "lr_teacher": 0.02, "dtype": "bf16"}.items():
        with pytest.raises(ValueError, match=rf"holds experts with {setting}=\S+, not {value}; choose another --out"):
            train(digits, tmp_path, resume=True, **{setting: value})
    labels = digits.train.labels.copy()
    labels[0] = 9 - labels[0]
    other = replace(digits, train=replace(digits.train, labels=labels))
    with pytest.raises(ValueError, match="holds experts of other data of the name 'c-digits'"):
        train(other, tmp_path, resume=True)
    with pytest.raises(ValueError, match="or of other weights or groups"):
        train(digits, tmp_path, resume=True, groups=np.zeros(120, np.int64))


def test_two_trainings_in_one_folder(digits, tmp_path):
    lock = files.hold(tmp_path)
    with pytest.raises(BlockingIOError, match="another process is running in"):
        train(digits, tmp_path)
    lock.close()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty and holds no experts \(it has 'notes\.txt'\)"):
        train(digits, tmp_path)


def stopped(digits, path, epochs):
    """A folder whose training was interrupted after some epochs."""
    seen = []

    def progress(now):
        seen.append(now)
        if now.epoch == epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match=rf"stopped after {epochs} of 8 epochs; --resume continues"):
        train(digits, path, progress=progress)
    assert [now.epoch for now in seen] == list(range(1, epochs + 1))
    assert all(now.total == 8 and math.isfinite(now.loss) for now in seen)


@pytest.mark.parametrize("damage", ["state", "values"])
def test_an_expert_with_a_damaged_state_starts_again(digits, tmp_path, damage):
    train(digits, tmp_path / "whole")
    stopped(digits, tmp_path / "damaged", 6)
    state = tmp_path / "damaged" / "expert-00001.pt"
    if damage == "state":
        state.write_bytes(state.read_bytes()[:-100])
    else:
        values = np.load(tmp_path / "damaged" / "trajectories.npy", mmap_mode="r+")
        values[1, 1, 0] += 1
        values.flush()
    with pytest.warns(RuntimeWarning, match=r"expert-00001\.pt is not used, expert 1 starts again"):
        train(digits, tmp_path / "damaged", resume=True)
    assert content(tmp_path / "damaged") == content(tmp_path / "whole")


def test_values_lost_under_a_training_are_named(digits, tmp_path):
    stopped(digits, tmp_path, 6)
    with open(tmp_path / "trajectories.npy", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(RuntimeError, match=r"trajectories\.npy has 1000 bytes, not \d+: it is truncated"):
        train(digits, tmp_path, resume=True)
    (tmp_path / "trajectories.npy").unlink()
    with pytest.raises(RuntimeError, match=r"trajectories\.npy is missing"):
        train(digits, tmp_path, resume=True)


def test_a_full_disk_is_told_before_the_work(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    monkeypatch.setattr(experts, "SideBySideTrainer", None)
    with pytest.raises(
        OSError, match=r"KiB free; the training of 2 experts for 4 epochs needs .*half of it with dtype"
    ):
        train(digits, tmp_path)


def test_a_disk_that_fills_up_leaves_what_was_done(digits, tmp_path, monkeypatch):
    train(digits, tmp_path / "whole")
    write, calls = TrajectoryFile.write, []

    def fails(self, *arguments):
        calls.append(arguments)
        if len(calls) == 8:
            raise OSError(28, "No space left on device")
        return write(self, *arguments)

    monkeypatch.setattr(TrajectoryFile, "write", fails)
    with pytest.raises(OSError, match="No space left"):
        train(digits, tmp_path / "full")
    monkeypatch.setattr(TrajectoryFile, "write", write)
    train(digits, tmp_path / "full", resume=True)
    assert content(tmp_path / "full") == content(tmp_path / "whole")


def test_divergence_stops_with_the_knob(digits, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=r"expert 0 diverged in epoch \d .* lower lr_teacher \(1e\+20\)") as caught:
        train(digits, tmp_path / "nan", lr_teacher=1e20)
    assert "\n" not in str(caught.value)
    # Finite, but ever worse than guessing.
    losses = iter([torch.tensor(value) for value in (2.0, 6.0, 5.0, 5.5)])
    monkeypatch.setattr(expert_training, "train_epoch", lambda *_, **__: next(losses))
    with pytest.raises(RuntimeError, match=r"diverged in epoch 4 \(loss 5\.5, that of guessing 2\.30\)"):
        train(digits, tmp_path / "worse")


def test_weights_reach_the_loss(digits, tmp_path):
    """Images of weight 0 have no influence on plain training of full batches."""
    settings = {"dsa_strategy": "none", "batch_train": 120, "num_experts": 1, "debias": "kde"}
    weights = (np.arange(120) % 3 > 0).astype(np.float32)
    trained = train(digits, tmp_path / "a", weights=weights, **settings)
    images = digits.train.images.copy()
    images[weights == 0] = 255 - images[weights == 0]
    other = replace(digits, train=replace(digits.train, images=images))
    torch.testing.assert_close(train(other, tmp_path / "b", weights=weights, **settings).values, trained.values)
    uniform = train(digits, tmp_path / "c", weights=np.ones(120), **settings)
    assert torch.equal(uniform.values, train(digits, tmp_path / "d", **{**settings, "debias": "none"}).values)
    assert not torch.allclose(uniform.values, trained.values)


def test_images_drawn_in_proportion_to_their_weights(digits, tmp_path, monkeypatch):
    orders = []

    def record(net, images, labels, sgd, *, order, weights, **_):
        assert weights is None
        orders.append(order)
        with torch.no_grad():
            next(net.parameters()).add_(1.0)  # experts that do not move are told
        return torch.tensor(1.0)

    monkeypatch.setattr(expert_training, "train_epoch", record)
    train(digits, tmp_path / "a", sampling="weighted", width=1, epochs=100, eval_every=0)
    assert all(len(order) == 120 for order in orders)
    assert not torch.equal(orders[0], orders[1])
    counts = torch.bincount(torch.cat(orders), minlength=120)
    weights = torch.from_numpy(loss_weights("fairdd", digits.train.labels, digits.train.groups))
    # 200 epochs: a row of weight w comes 200 w times, with a deviation of about sqrt(200 w).
    assert ((counts - 200 * weights).abs() < 5 * (200 * weights).sqrt()).all()
    # Images of weight 0 are never drawn.
    kde = (np.arange(120) % 3 > 0).astype(np.float32)
    train(digits, tmp_path / "b", sampling="weighted", debias="kde", weights=kde)
    assert (kde[torch.cat(orders[200:]).numpy()] > 0).all()


def test_bf16_is_rounded_only_when_stored(digits, tmp_path):
    exact, rounded = (train(digits, tmp_path / dtype, dtype=dtype) for dtype in ("fp32", "bf16"))
    assert torch.equal(rounded.values, exact.values.bfloat16())
    stored = [(tmp_path / dtype / "trajectories.npy").stat().st_size - 128 for dtype in ("fp32", "bf16")]
    assert stored[0] == 2 * stored[1]


def test_whitened_images(digits, tmp_path):
    trained = train(digits, tmp_path / "zca", zca=True, epochs=1, num_experts=1, debias="none")
    expected = Zca.fit(digits.train.images)
    assert trained.zca.digest() == expected.digest() == trained.manifest["zca_digest"]
    net = models.build("ConvNet", 3, 10, (16, 16), width=4, depth=2)
    init = models.ParameterInit(net)
    init.fill(rng.key(0, "expert-net", 0))
    train_epoch(
        net,
        expected.read(digits.train.images),
        torch.from_numpy(digits.train.labels),
        torch.optim.SGD(net.parameters(), lr=0.01),
        batch=32,
        dsa_strategy="color_crop_cutout_scale_rotate",
        key=(0, "expert", 0, 0),
    )
    assert torch.equal(trained.at(0, 1), init.flat)


def test_learning_rate_decays_as_published(digits, tmp_path, monkeypatch):
    """After epoch E // 2 + 1, by a new optimiser, whose momentum starts from zero."""
    rates, fresh = [], []

    def record(net, images, labels, sgd, **_):
        rates.append(sgd.param_groups[0]["lr"])
        fresh.append(not sgd.state)
        sum(parameter.sum() for parameter in net.parameters()).backward()
        sgd.step()
        return torch.tensor(1.0)

    monkeypatch.setattr(expert_training, "train_epoch", record)
    train(digits, tmp_path, num_experts=1, epochs=6, decay=True, momentum=0.9)
    assert rates == pytest.approx([0.01] * 5 + [0.001])
    assert fresh == [True] + [False] * 4 + [True]


def test_presets_are_the_published_rows():
    whitened = {("cifar10", 1): True, ("cifar10", 10): True, ("cifar10", 50): False, ("cifar100", 1): True}
    whitened |= {("cifar100", 10): False, ("cifar100", 50): True, ("tiny-imagenet", 10): False, ("mnist", 1): False}
    for (dataset, ipc), expected in whitened.items():
        assert ExpertSettings.configure(dataset=dataset, ipc=ipc).zca is expected
    published = ExpertSettings.configure(dataset="cifar10")
    assert (published.num_experts, published.epochs, published.lr_teacher, published.batch_train) == (
        100,
        50,
        0.01,
        256,
    )
    assert (published.momentum, published.weight_decay, published.decay) == (0, 0, False)
    assert ExpertSettings.configure(dataset="tiny-imagenet").arch == "ConvNetD4"
    assert ExpertSettings.configure(dataset="imagesquawk").arch == "ConvNetD5"
    assert preset("experts", "c-digits", 10)["batch_train"] == 64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"debias": "fairdd-iw"}, "experts can't be trained with debias 'fairdd-iw'; one of: none, fairdd, kde"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"num_experts": 0}, "num_experts must be at least 1, not 0"),
        ({"lr_teacher": 0}, "lr_teacher must be above 0, not 0"),
        ({"dtype": "fp16"}, "dtype must be one of fp32, bf16, not 'fp16'"),
        ({"arch": "ConvNot"}, "unknown network 'ConvNot'"),
        ({"ipc": 0}, "IPC must be at least 1"),
        ({"nonsense": 1}, "nonsense"),
        ({"sampling": "weighted", "debias": "none"}, "sampling weighted is for debias .*fairdd.*kde.*, not none"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        config(**settings)
    assert "\n" not in str(caught.value)


def test_bad_arguments(digits, tmp_path):
    with pytest.raises(ValueError, match="processes must be at least 1, not 0"):
        train(digits, tmp_path / "out", processes=0)
    with pytest.raises(ValueError, match="debias=fairdd takes no weights"):
        train(digits, tmp_path / "out", weights=np.ones(120))
    with pytest.raises(ValueError, match=r"images of 16x16 pixels are too small for a ConvNet of depth 6"):
        train(digits, tmp_path / "out", depth=6)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot create the folder"):
        train(digits, tmp_path / "file")
