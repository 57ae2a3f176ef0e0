"""A network from its settings to its figures: stages, resume, validation, files."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import fastdd
from fastdd.core import files
from fastdd.data import Dataset, DeviceImages, Split
from fastdd.data.stand_in import stand_in_of_validation
from fastdd.session import training_folder
from fastdd.session.trained import NETWORK
from fastdd.session.training import TrainingRun
from fastdd.session.training_folder import CHECKPOINT
from fastdd.training import RECIPES, TrainingImages, TrainSettings, draw_fakes, fake_counts, start

FAST = {"epochs": 2, "width": 4, "depth": 1, "batch_train": 16}


def split(n: int, seed: int, conflicting: float = 0.2) -> Split:
    """Class by the brightness of the left half, group by that of the right, which mostly agree."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    groups = np.where(generator.random(n) < conflicting, 1 - labels, labels)
    images = generator.integers(0, 90, (n, 3, 8, 8))
    images[..., :4] += 90 * labels[:, None, None, None]
    images[..., 4:] += 160 * groups[:, None, None, None]
    return Split(images.astype(np.uint8), labels.astype(np.int64), groups.astype(np.int64))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Dataset(
        "halves", split(80, 0), split(40, 1, 0.5), ("dark", "light"), ("a", "b"), (0.5,) * 3, (0.25,) * 3, {},
        validation=split(40, 2, 0.5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def fakes() -> Split:
    return split(400, 3, 0.5)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("training", RECIPES)
def test_a_killed_training_ends_in_the_same_bits(data, tmp_path, training):
    settings = {**FAST, "training": training, "epochs": 3, "dsa_strategy": "flip_crop"}
    settings["constants"] = {"swap_from": 5} if training == "dfa" else {"pool": 32} if "mix" in training else {}
    whole = fastdd.train_network(data, out=tmp_path / "whole", **settings)

    def stop(done: int, total: int, row: dict) -> None:
        if done == 2:
            raise Interrupt  # as a kill: after the epoch, before it is saved

    with pytest.raises(Interrupt):
        fastdd.train_network(data, out=tmp_path / "killed", progress=stop, **settings)
    resumed = fastdd.train_network(data, out=tmp_path / "killed", resume=True, **settings)
    assert same(whole.net.state_dict(), resumed.net.state_dict())
    assert torch.equal(whole.counts.right, resumed.counts.right)
    kept = [{name: value for name, value in row.items() if name != "seconds"} for row in whole.history]
    assert kept == [{name: value for name, value in row.items() if name != "seconds"} for row in resumed.history]
    again = fastdd.load_network(tmp_path / "killed")
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(images), whole.net(images))


def test_stage_two_from_a_file_is_both_stages_in_one_go(data, fakes, tmp_path):
    settings = {**FAST, "use": "ffr", "training": "groupdro", "pretrain_lr": 0.01}
    both = fastdd.train_network(data, fakes=fakes, out=tmp_path / "both", **settings)
    first = fastdd.train_network(data, fakes=fakes, stages="1", out=tmp_path / "first", **settings)
    second = fastdd.train_network(
        data, fakes=fakes, stages="2", weights=tmp_path / "first", out=tmp_path / "second", **settings
    )
    assert same(both.net.state_dict(), second.net.state_dict())
    assert [row["stage"] for row in both.history] == ["fake", "fake", "real", "real"]
    assert not same(first.net.state_dict(), second.net.state_dict())
    assert len(json.loads((tmp_path / "both" / "metrics.jsonl").read_text().splitlines()[3])) == 7


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_norms_keep_the_fake_images_statistics(data, fakes, frozen):
    settings = {**FAST, "arch": "ConvNetBN", "use": "ffr", "keep": "last"}
    first = fastdd.train_network(data, fakes=fakes, stages="1", **settings).net.state_dict()
    both = fastdd.train_network(data, fakes=fakes, freeze_norms=frozen, **settings).net.state_dict()
    means = [name for name in first if name.endswith("running_mean")]
    assert means
    assert all(torch.equal(first[name], both[name]) == frozen for name in means)


def test_the_epoch_with_the_best_worst_group_on_validation_images_is_kept(data):
    trained = fastdd.train_network(data, **{**FAST, "epochs": 6, "lr": 0.02})
    best = max(trained.history, key=lambda row: (row["wa"], row["ba"], -row["epoch"]))
    assert trained.epoch == best["epoch"]
    assert fastdd.train_network(data, keep="last", **{**FAST, "epochs": 6, "lr": 0.02}).epoch == 6


def test_of_a_grid_of_rates_validation_images_choose(data, tmp_path):
    rates = [1e-5, 0.02]
    chosen = fastdd.train_network(data, lr_grid=rates, out=tmp_path, **{**FAST, "epochs": 4})
    assert chosen.settings.lr == 0.02
    assert (tmp_path / "lr-1e-05" / NETWORK).exists()
    assert (tmp_path / "lr-0.02" / NETWORK).exists()


def test_volumes_are_those_of_the_published_sums():
    counts = np.array([[900, 1], [2, 800]])
    assert fake_counts(counts, "usb").tolist() == [[0, 899], [898, 100]]
    total = 899 + 898 + 100
    assert fake_counts(counts, "asb").tolist() == fake_counts(counts, "ffr").tolist() == [[total // 4] * 2] * 2
    assert fake_counts(counts, "ffr", 6).tolist() == [[6 * total // 4] * 2] * 2
    assert fake_counts(counts, "none").sum() == 0


def test_fewer_images_top_up_the_smallest_cells():
    counts = np.array([[90, 10], [20, 80]])  # 160 are missing
    assert fake_counts(counts, "usb", 0.5).tolist() == [[0, 45], [35, 0]]
    assert fake_counts(counts, "usb", 0.1).tolist() == [[0, 13], [3, 0]]
    assert fake_counts(counts, "usb", 0.001).tolist() == [[0, 0], [0, 0]]
    assert fake_counts(counts, "usb", 0.999).tolist() == [[0, 79], [69, 9]]
    assert fake_counts(np.array([[5, 5]]), "usb", 0.5).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("counts", "usb", "each"),
    [
        # Training images of From Fake to Real's files at 99.9 %, (class, group) by (class, group).
        ([[1, 934], [5731, 6]], [[5730, 4797], [0, 5725]], 4063),  # UTKFace: 16,252 are missing
        ([[6, 5335], [7797, 8]], [[7791, 2462], [0, 7789]], 4510),  # CelebA-HQ: 18,042
    ],
)
def test_volumes_of_the_papers_sets(counts, usb, each):
    counts = np.array(counts)
    assert fake_counts(counts, "usb").tolist() == usb
    assert fake_counts(counts, "asb").tolist() == fake_counts(counts, "ffr").tolist() == [[each] * 2] * 2
    assert fake_counts(counts, "usb").sum() // 4 == each
    assert fake_counts(counts, "ffr", 6).tolist() == [[6 * int(np.sum(usb)) // 4] * 2] * 2


def test_topped_up_cells_are_even_and_groups_tell_fake_from_real(data, fakes):
    real = data.train.counts(2, 2)
    wanted = fake_counts(real, "usb")
    assert len(set((real + wanted).ravel().tolist())) == 1
    drawn = draw_fakes(fakes, wanted, (data.class_names, data.group_names), 7)
    assert drawn.counts(2, 2).tolist() == wanted.tolist()
    rows = {image.tobytes() for image in drawn.images}
    assert len(rows) == wanted.sum()  # none twice
    run = TrainingRun(TrainSettings.configure(dataset="halves", use="usb", arch="ConvNet", **FAST), data, fakes=fakes)
    seen = run.stages[0].data
    assert seen.num_groups == 4
    assert torch.bincount(seen.cells, minlength=8).view(2, 2, 2).tolist() == [
        [[real[y, 0], real[y, 1]], [wanted[y, 0], wanted[y, 1]]] for y in range(2)
    ]


@pytest.mark.parametrize("use", ["usb", "ffr"])
def test_stand_ins_are_validation_images_that_choose_nothing(data, use, tmp_path):
    data = dataclasses.replace(data, validation=split(200, 4, 0.5))
    settings = {**FAST, "use": use, "epochs": 1, "seed": 3}
    trained = fastdd.train_network(data, fakes="stand-in:2", out=tmp_path / "net", **settings)
    wanted = fake_counts(data.train.counts(2, 2), use)
    assert trained.fakes.tolist() == wanted.tolist()
    # As the images themselves, of which validation has the rest.
    rest, fakes = stand_in_of_validation(data, wanted, 2, seed=3)
    given = fastdd.train_network(rest, fakes=fakes, **settings)
    assert same(trained.net.state_dict(), given.net.state_dict())
    assert [row["wa"] for row in trained.history] == [row["wa"] for row in given.history]
    about = yaml.safe_load((tmp_path / "net" / "config.yaml").read_text())["about"]
    assert about["fakes"] == trained.fakes_from == "stand-in: validation images, degraded at severity 2"
    assert about["data"]["stand_in"]["images"] == wanted.sum()
    again = fastdd.train_network(data, fakes="stand-in:2", out=tmp_path / "net", resume=True, **settings)
    assert same(trained.net.state_dict(), again.net.state_dict())


def test_a_distilled_set_is_a_fake_for_the_first_stage(data):
    synthetic = fastdd.distill(data, ipc=2, iterations=1, width=4, depth=1, batch_real=4)
    trained = fastdd.train_network(data, fakes=synthetic, use="ffr", **FAST)
    assert trained.fakes.tolist() == [2, 2]
    with pytest.raises(ValueError, match="use=usb counts fake images by group"):
        fastdd.train_network(data, fakes=synthetic, use="usb", **FAST)
    with pytest.raises(ValueError, match="scale 2 counts fake images, and a synthetic set is trained on whole"):
        fastdd.train_network(data, fakes=synthetic, use="ffr", scale=2, **FAST)


def test_weights_of_other_classes_leave_the_last_layer_at_random(data, tmp_path):
    trained = fastdd.train_network(data, out=tmp_path / "net", **FAST)
    state = load_file(tmp_path / "net" / NETWORK)
    state["classifier.weight"] = torch.zeros(7, state["classifier.weight"].shape[1])
    state["classifier.bias"] = torch.zeros(7)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pt")
    other = fastdd.train_network(data, weights=tmp_path / "w.pt", **FAST)
    assert other.unfilled == ("classifier.weight", "classifier.bias")
    assert trained.unfilled == ()
    with pytest.raises(
        ValueError, match=r"no weights of ConvNet: features.0.weight is \[4, 3, 3, 3\], not \[8, 3, 3, 3\]"
    ):
        fastdd.train_network(data, weights=tmp_path / "net", **{**FAST, "width": 8})


def test_a_last_layer_is_fitted_on_balanced_held_out_images(data):
    """Features that tell the class, beside ones that tell the group: a last layer that goes by the former is found."""
    images = TrainingImages(
        DeviceImages.of(data.validation.images, data.mean, data.std), torch.as_tensor(data.validation.labels), 2,
        torch.as_tensor(data.validation.groups), 2,
    )  # fmt: skip

    class Halves(torch.nn.Module):
        embedding_dim = 2

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def embed(self, x):
            return torch.stack([x[..., :4].mean((1, 2, 3)), 3 * x[..., 4:].mean((1, 2, 3))], 1) * self.scale

    dfr = start("dfr", images, Halves(), lambda name: Halves(), (0, "test"))
    dfr.finish(images)
    test = DeviceImages.of(data.test.images, data.mean, data.std).read(torch.arange(40))
    right = dfr.predictor()(test).argmax(1).numpy() == data.test.labels
    cells = data.test.labels * 2 + data.test.groups
    assert min(right[cells == cell].mean() for cell in range(4)) >= 0.8


def test_what_a_training_needs_is_told_before_it(data, fakes, tmp_path):
    bare = Dataset("bare", data.train, data.test, data.class_names, data.group_names, data.mean, data.std, {})
    one_group = bare.with_groups(np.zeros(80, np.int64))
    lacking = Dataset(
        "lacking", data.train, data.test, data.class_names, data.group_names, data.mean, data.std, {},
        validation=split(40, 2, 0.0),
    )  # fmt: skip
    cases = [
        (bare, {"keep": "best"}, "keep=best needs validation images: data option validation=0.1"),
        (bare, {"training": "dfr"}, "training dfr needs validation images"),
        (bare, {"lr_grid": [0.1]}, "lr_grid chooses by validation images"),
        (one_group, {"training": "groupdro"}, "training groupdro looks at groups, and bare has one"),
        (lacking, {}, "no validation image is of class 'dark', group 'b'"),
        (data, {"use": "ffr"}, "use=ffr needs fake images"),
        (data, {"fakes": fakes}, "use=none takes no fake images"),
        (data, {"fakes": "stand-in"}, "use=none takes no fake images"),
        (data, {"use": "usb", "fakes": "stand-in"}, "to take .* of, and one has to be left"),
        (bare, {"use": "usb", "fakes": "stand-in"}, "bare has no validation images to make stand-ins of"),
        (
            data,
            {"use": "usb", "fakes": "stand-in:x"},
            "fakes 'stand-in:x' must be stand-in, or stand-in: and a severity",
        ),
        (data, {"use": "usb", "fakes": fakes.take(np.arange(20)), "scale": 2}, "lower the scale, or give more"),
        (data, {"use": "usb", "fakes": fakes, "pretrain_lr": 0.1}, "pretrain_lr is for use ffr, not usb"),
        (data, {"scale": 2}, "scale 2 is of fake images"),
        (data, {"lr_grid": [0.1, 0.01, 0.0100000001]}, "lr_grid has two learning rates whose folder is lr-0.01"),
        (data, {"stages": "2", "use": "ffr", "fakes": fakes}, "stages 2 begins with weights"),
        (data, {"training": "lff", "constants": {"z": 1}}, "training lff has no constant 'z'"),
    ]
    for dataset, settings, message in cases:
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            fastdd.train_network(dataset, out=tmp_path / "none", **{**FAST, **settings})
    assert not (tmp_path / "none").exists()


def test_a_folder_of_another_training_is_left_alone(data, tmp_path):
    fastdd.train_network(data, out=tmp_path, **FAST)
    with pytest.raises(ValueError, match="already holds a network"):
        fastdd.train_network(data, out=tmp_path, **FAST)
    with pytest.raises(ValueError, match=r"trained with lr=0.001, not 0.5"):
        fastdd.train_network(data, out=tmp_path, resume=True, lr=0.5, **FAST)
    (tmp_path / CHECKPOINT).write_bytes(b"PK not a checkpoint")
    with pytest.raises(RuntimeError, match=r"checkpoint.pt can't be read"):
        fastdd.train_network(data, out=tmp_path, resume=True, **FAST)


@pytest.mark.parametrize("settings", [{}, {"training": "selecmix-lff", "optimiser": "sgd"}, {"use": "ffr"}])
def test_a_full_disk_is_told_before_the_training_and_the_room_asked_for_is_enough(
    data, fakes, tmp_path, monkeypatch, settings
):
    settings = {**FAST, **settings, **({"fakes": fakes} if "use" in settings else {})}
    written, right = {}, files.write_atomic

    def noted(path, write):
        right(path, write)
        written[path.name] = max(written.get(path.name, 0), path.stat().st_size)

    monkeypatch.setattr(files, "write_atomic", noted)
    asked = []
    monkeypatch.setattr(training_folder, "check_room", lambda folder, needed, what: asked.append(needed))
    fastdd.train_network(data, out=tmp_path / "fits", **settings)
    peak = sum(written.values()) + written[CHECKPOINT]
    assert peak <= asked[0] <= 1.5 * peak + 2**16
    monkeypatch.undo()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    monkeypatch.setattr(TrainingRun, "run", None)
    for more in ({}, {"lr_grid": (0.1, 0.01)}):
        with pytest.raises(OSError, match=r"[KM]iB free; the training needs [\d.,]+ [KM]iB: make room"):
            fastdd.train_network(data, out=tmp_path / "full", **settings, **more)
    assert not (tmp_path / "full").exists()
