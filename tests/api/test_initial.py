"""Runs that start from a stored set: the same bits, classes by name, kept in the run's folder."""

import dataclasses

import pytest
import torch

import fastdd
from fastdd.data import SyntheticSet, Zca, load
from fastdd.data.initial import images_of_set, random_set

# Nothing moves, so that the first images are the last.
FROZEN = {"iterations": 1, "lr_img": 1e-30, "width": 8, "batch_real": 8, "ipc": 2}
SMALL = {"iterations": 4, "width": 8, "batch_real": 8, "ipc": 2}
unmoved = pytest.mark.filterwarnings("ignore:no synthetic image has changed")


@pytest.fixture(scope="module")
def digits():
    return load("c-digits")


@pytest.fixture
def stored(digits, tmp_path):
    """A run folder whose set is far from real images."""
    fastdd.distill(digits, out=tmp_path / "first", seed=5, init="noise", **SMALL)
    return tmp_path / "first"


@unmoved
@pytest.mark.parametrize("method", ["dm", "dc", "dsa", "datadam"])
def test_a_run_starts_from_the_bits_of_a_stored_set(digits, stored, method):
    images = SyntheticSet.load(stored / "synthetic.safetensors").images
    for init in (stored, str(stored / "synthetic.safetensors")):
        assert torch.equal(fastdd.distill(digits, method=method, init=init, **FROZEN).images, images)


@unmoved
def test_classes_go_by_their_names(digits, stored):
    """A set that numbers its classes the other way round, its images in any order, is the same start."""
    own = SyntheticSet.load(stored / "synthetic.safetensors")
    names = [f"digit {name}" for name in digits.class_names]
    data = dataclasses.replace(digits, class_names=tuple(names))
    order = torch.tensor([*range(1, 20, 2), *range(0, 20, 2)])
    turned = dataclasses.replace(
        own,
        images=own.images[order],
        labels=9 - own.labels[order],
        metadata={**own.metadata, "class_names": names[::-1]},
    )
    turned.save(stored / "turned.safetensors")
    made = fastdd.distill(data, init=stored / "turned.safetensors", **FROZEN)
    # Of a class, odd images were put before even ones.
    assert torch.equal(made.images, own.images.view(10, 2, 3, 16, 16).flip(1).flatten(0, 1))


@unmoved
def test_an_imported_set_of_another_normalisation_is_converted(digits, stored, tmp_path):
    own = SyntheticSet.load(stored / "synthetic.safetensors")
    mean, std = [0.4, 0.3, 0.2], [0.2, 0.25, 0.3]
    there = (own.images.double() * 0.5 + 0.5 - torch.tensor(mean).view(3, 1, 1).double()) / torch.tensor(std).view(
        3, 1, 1
    )
    fastdd.export_synthetic(
        dataclasses.replace(own, images=there.float(), metadata={**own.metadata, "mean": mean, "std": std}),
        tmp_path / "theirs.pt",
        to="dc",
    )
    with pytest.raises(ValueError, match="is another project's: first fastdd import"):
        fastdd.distill(digits, init=tmp_path / "theirs.pt", **FROZEN)
    fastdd.import_synthetic(tmp_path / "theirs.pt", mean=mean, std=std).save(tmp_path / "mine.safetensors")
    made = fastdd.distill(digits, init=tmp_path / "mine.safetensors", **FROZEN)
    assert (made.images - own.images).abs().max() <= 4e-7 * own.images.abs().max()
    assert made.metadata["mean"] == list(digits.mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ipc": 1}, r"init .*: it has 2 images of class '0', and the IPC is 1: give an IPC of 2"),
        ({"images": (3, 8, 8)}, r"its images are \[3, 8, 8\], those of c-digits are \[3, 16, 16\]"),
        ({"class_names": ["zebra", *"123456789"]}, "classes go by their names, and its are called 'zebra'"),
        ({"labels": 0}, "it has 20 images of class '0', and the IPC is 2"),
        ({"zca": True}, r"its images are whitened \(ZCA\), and the run does not whiten: .* alike"),
    ],
)
def test_a_set_that_does_not_fit_is_refused_in_one_line(digits, tmp_path, change, message):
    made = random_set(digits, 2, zca=Zca.fit(digits.train.images[:50]) if "zca" in change else None)
    if "images" in change:
        made = dataclasses.replace(made, images=torch.zeros(20, *change["images"]))
    if "class_names" in change:
        made = dataclasses.replace(made, metadata={**made.metadata, "class_names": change["class_names"]})
    if "labels" in change:
        made = dataclasses.replace(made, labels=torch.zeros(20, dtype=torch.int64))
    made.save(tmp_path / "set.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        fastdd.Distillation(digits, init=tmp_path / "set.safetensors", ipc=change.get("ipc", 2))
    assert "\n" not in str(error.value)


def test_values_that_are_not_finite_are_refused(digits):
    made = random_set(digits, 1)
    made.images[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="some values of its images are not finite"):
        images_of_set(made, digits, 1)


def test_names_that_only_the_set_has_are_refused(digits):
    made = random_set(digits, 1)
    named = dataclasses.replace(made, metadata={**made.metadata, "class_names": [f"animal {c}" for c in "abcdefghij"]})
    with pytest.raises(ValueError, match="classes go by their names, and its are called 'animal a'"):
        images_of_set(named, digits, 1)


def test_whitened_images_need_the_same_whitening(digits):
    zca, other = Zca.fit(digits.train.images[:50]), Zca.fit(digits.train.images[50:100])
    made = random_set(digits, 1, zca=zca)
    assert torch.equal(images_of_set(made, digits, 1, zca), made.images)
    for wrong in (other, None):
        with pytest.raises(ValueError, match="they have to be whitened alike"):
            images_of_set(made, digits, 1, wrong)
    with pytest.raises(ValueError, match="its images are not whitened, and the run whitens by the ZCA of its experts"):
        images_of_set(random_set(digits, 1), digits, 1, zca)


@pytest.mark.parametrize("end", ["gone", "changed"])
@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_resumed_run_needs_the_file_no_more(digits, stored, tmp_path, end, checkpoint):
    init = stored / "synthetic.safetensors"
    whole = fastdd.distill(digits, init=init, **SMALL)
    out = tmp_path / "run"
    fastdd.distill(digits, init=init, out=out, checkpoint_seconds=0, **{**SMALL, "iterations": 2})
    if not checkpoint:  # as if it had been killed before the first
        for path in (*out.glob("checkpoint*"), out / "synthetic.safetensors"):
            path.unlink()
    if end == "gone":
        init.unlink()
        resumed = fastdd.distill(digits, init=init, out=out, resume=True, **SMALL)
    else:
        random_set(digits, 2, seed=9).save(init)
        with pytest.warns(RuntimeWarning, match="has changed since the run in"):
            resumed = fastdd.distill(digits, init=init, out=out, resume=True, **SMALL)
    assert torch.equal(resumed.images, whole.images)


def test_a_missing_file_is_told_before_any_work(digits, tmp_path):
    for begin in (lambda job: job.run(out=tmp_path / "run"), lambda job: job.estimate()):
        with pytest.raises(FileNotFoundError, match=r"init .*nothing.safetensors: there is no stored set"):
            begin(fastdd.Distillation(digits, init=tmp_path / "nothing.safetensors", **SMALL))
    assert not (tmp_path / "run").exists()


def test_another_start_is_another_run(digits, stored, tmp_path):
    fastdd.distill(digits, init=str(stored), out=tmp_path / "run", **SMALL)
    with pytest.raises(ValueError, match="holds a run with init="):
        fastdd.distill(digits, init="real", out=tmp_path / "run", resume=True, **SMALL)
    kept = SyntheticSet.load(tmp_path / "run/initial.safetensors")
    kept.images[0, 0, 0, 0] += 1
    kept.save(tmp_path / "run/initial.safetensors")
    (stored / "synthetic.safetensors").unlink()
    with pytest.raises(ValueError, match="or other weights, groups or first images"):
        fastdd.distill(digits, init=str(stored), out=tmp_path / "run", resume=True, **SMALL)


def test_a_bare_name_of_what_is_there_is_a_path_and_the_words_are_words(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = random_set(digits, 2, seed=3)
    for name in ("begun", "real"):
        made.save(tmp_path / name)
    assert torch.equal(fastdd.distill(digits, init="begun", **FROZEN).images, made.images)
    assert not torch.equal(fastdd.distill(digits, init="real", **FROZEN).images, made.images)
    with pytest.raises(ValueError, match=r"or the path of a stored set, such as \./gone"):
        fastdd.distill(digits, init="gone", **FROZEN)


def test_the_bare_name_of_what_is_gone_is_that_which_the_run_began_from(digits, stored, tmp_path, monkeypatch):
    """Not of a file ./NAME, where the run knows it by its whole path."""
    whole = fastdd.distill(digits, init=stored, **SMALL)
    fastdd.distill(digits, init=stored, out=tmp_path / "run", **{**SMALL, "iterations": 2})
    stored.rename(tmp_path / "away")
    monkeypatch.chdir(tmp_path / "run")
    again = {"out": tmp_path / "run", "resume": True, **SMALL}
    assert torch.equal(fastdd.distill(digits, init="first", **again).images, whole.images)
    for init in ("another", "noise"):
        with pytest.raises(ValueError, match=r"such as \./another|holds a run with init="):
            fastdd.distill(digits, init=init, **again)
