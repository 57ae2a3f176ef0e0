"""What is written is read as it was."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastdd
from fastdd.data import SyntheticSet, Zca
from tests.exchange.samples import classes, images, made, refused, same


@st.composite
def sets(draw, most=6, whole=False):
    """Synthetic sets of any shape, order of labels, soft labels and step size; of pixels in 8 bits if ``whole``."""
    channels, height = draw(st.sampled_from([1, 3])), draw(st.integers(1, 5))
    labels = draw(st.lists(st.integers(0, 3), min_size=1, max_size=most))
    seed = draw(st.integers(0, 2**31))
    random = torch.Generator().manual_seed(seed)
    mean, std = (
        [draw(st.floats(0.1, 0.9)) for _ in range(channels)],
        [draw(st.floats(0.1, 0.9)) for _ in range(channels)],
    )
    values = torch.randn(len(labels), channels, height, height, generator=random)
    if whole:
        pixels = torch.randint(0, 256, values.shape, generator=random) / 255
        values = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    soft = torch.randn(len(labels), 4, generator=random).softmax(1)
    metadata = {"class_names": ["a", "b/c", "10", "9"], "mean": mean, "std": std, "dataset": "cifar10", "method": "dm"}
    return SyntheticSet(
        values,
        torch.tensor(labels),
        metadata,
        learning_rate=draw(st.none() | st.floats(-1, 1)),
        soft_labels=soft if draw(st.booleans()) else None,
    )


def through(original, folder, to, name="out", **options):
    written = fastdd.export_synthetic(original, folder / name, to=to, force=True, **options)
    return fastdd.import_synthetic(written.files[0])


@given(sets())
def test_npz_holds_everything(tmp_path_factory, original):
    same(through(original, tmp_path_factory.getbasetemp(), "npz", "all.npz"), original)


def test_npz_holds_groups_and_the_others_say_that_they_do_not(tmp_path):
    groups = torch.tensor([3, 0, 1, 0])
    original = made(groups=groups, metadata={"groups_from": "those of the real images"})
    again = through(original, tmp_path, "npz", "all.npz")
    assert torch.equal(again.groups, groups)
    assert again.metadata["groups_from"] == original.metadata["groups_from"]
    for to in ("dc", "mtt", "idc", "dcbench", "folder", "webdataset"):
        written = fastdd.export_synthetic(original, tmp_path / {"webdataset": "x.tar"}.get(to, to), to=to)
        assert f"{to} has no groups of images: they are left out" in written.notes
    np.savez(
        tmp_path / "wrong.npz", images=original.images, labels=original.labels, groups=[1.5], mean=[0] * 3, std=[1] * 3
    )
    with refused(ValueError, "wrong.npz can't be a synthetic set: groups must be an int64 tensor"):
        fastdd.import_synthetic(tmp_path / "wrong.npz")


@given(sets())
def test_dc_holds_images_and_classes(tmp_path_factory, original):
    again = through(original, tmp_path_factory.getbasetemp(), "dc", "dc.pt", hard_labels=True)
    same(again, original, learning_rate=False, soft_labels=False)


@given(sets())
def test_mtt_holds_all_but_the_classes_of_soft_labels(tmp_path_factory, original):
    if original.soft_labels is not None:
        original = replace(original, labels=original.soft_labels.argmax(1))
    same(through(original, tmp_path_factory.getbasetemp(), "mtt"), original)


@given(sets(whole=True))
def test_idc_and_folders_hold_pixels(tmp_path_factory, original):
    root = tmp_path_factory.mktemp("pixels")
    for to in ("idc", "folder"):
        written = fastdd.export_synthetic(original, root / to, to=to, hard_labels=True)
        again = fastdd.import_synthetic(root / to)
        order = torch.arange(len(original.labels))
        if to == "folder":  # class by class, in the order of the folders' names
            names = original.metadata["class_names"]
            order = torch.tensor(sorted(order.tolist(), key=lambda i: (names[original.labels[i]].replace("/", "_"), i)))
        assert torch.equal(again.labels, original.labels[order])
        torch.testing.assert_close(again.images, original.images[order], atol=1e-5, rtol=0)
        assert torch.equal(again.to_uint8(), original.to_uint8()[order])
        assert again.metadata["class_names"] == original.metadata["class_names"]
        assert any("step size" in note for note in written.notes) == (original.learning_rate is not None)


def test_whitened_sets_in_mtt_and_npz(tmp_path, c_digits):
    zca = Zca.fit(c_digits.train.images)
    whitened = zca.whiten(c_digits.train.images[:20])
    about = {"class_names": list("0123456789"), "mean": [0.0] * 3, "std": [1.0] * 3, "dataset": "c-digits"}
    original = SyntheticSet(whitened, classes(), about, zca=zca)
    again = fastdd.import_synthetic(fastdd.export_synthetic(original, tmp_path / "a.npz", to="npz").files[0])
    assert torch.equal(again.images, whitened)
    assert again.zca.digest() == zca.digest()
    written = fastdd.export_synthetic(original, tmp_path / "mtt", to="mtt")
    assert any("whitened" in note for note in written.notes)
    pixels = torch.load(tmp_path / "mtt" / "images_zca_best.pt", weights_only=True)
    torch.testing.assert_close(pixels, torch.from_numpy(c_digits.train.images[:20]) / 255, atol=1e-4, rtol=0)
    again = fastdd.import_synthetic(tmp_path / "mtt", dataset="c-digits", zca=True)
    assert torch.equal(again.images, whitened)
    assert again.zca.digest() == zca.digest()
    assert again.metadata["source"]["notes"] == []
    # Whitened images must not pass for normalised ones.
    with refused(ValueError, "are whitened: give --zca"):
        fastdd.import_synthetic(tmp_path / "mtt", dataset="c-digits")
    fastdd.export_synthetic(original, tmp_path / "png", to="folder")
    assert torch.equal(
        fastdd.import_synthetic(tmp_path / "png", mean=[0.5] * 3, std=[0.5] * 3).to_uint8(), original.to_uint8()
    )
    for to in ("dc", "idc", "dcbench"):
        with refused(ValueError, "no ZCA-whitened images"):
            fastdd.export_synthetic(original, tmp_path / "no", to=to, method="dm" if to == "dcbench" else None)


def test_what_a_file_says_counts_more_than_what_is_usual(tmp_path):
    """Ours of BFFHQ are normalised otherwise than FairDD's."""
    original = made(metadata={"dataset": "bffhq", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    for to, name in (("dc", "a.pt"), ("npz", "a.npz"), ("mtt", "m")):
        file = fastdd.export_synthetic(original, tmp_path / name, to=to).files[0]
        assert fastdd.import_synthetic(file, dataset="bffhq").metadata["mean"] == [0.1, 0.2, 0.3]
        assert fastdd.import_synthetic(file, mean=[0.5] * 3, std=[0.5] * 3).metadata["mean"] == [0.5] * 3
    torch.save({"data": [[original.images, original.labels]]}, tmp_path / "old.pt")
    assert fastdd.import_synthetic(tmp_path / "old.pt", dataset="bffhq").metadata["mean"] == [0.4914, 0.4822, 0.4465]


def test_metadata_survives(tmp_path):
    original = made()
    for to, name in (("dc", "a.pt"), ("mtt", "m"), ("idc", "i"), ("folder", "f"), ("npz", "n.npz"), ("dcbench", "b")):
        again = through(original, tmp_path, to, name).metadata
        for field in ("method", "debias", "dataset", "seed", "run", "ipc" if "ipc" in original.metadata else "seed"):
            assert again[field] == original.metadata[field], (to, field)
        assert again["source"]["files"]


def test_what_is_written_beside_is_not_taken_for_other_files(tmp_path):
    """A folder that another program wrote to again says no longer what fastdd wrote there."""
    for to, file in (("mtt", "images_best.pt"), ("idc", "data.pt")):
        fastdd.export_synthetic(made(), tmp_path / to, to=to)
        torch.save(
            images(4, (3, 8, 8)) if to == "mtt" else [torch.rand(4, 3, 8, 8), torch.tensor([0, 0, 1, 1])],
            tmp_path / to / file,
        )
        with refused(ValueError, "--mean and --std"):
            fastdd.import_synthetic(tmp_path / to)
    fastdd.export_synthetic(made(), tmp_path / "idc", to="idc", force=True)
    content = json.loads((tmp_path / "idc" / "fastdd.json").read_text())
    for metadata in ({}, {"mean": "0.5", "std": [0.5], "class_names": ["a"]}, [1]):
        (tmp_path / "idc" / "fastdd.json").write_text(json.dumps({**content, "metadata": metadata}))
        with refused(ValueError, "--mean and --std"):
            fastdd.import_synthetic(tmp_path / "idc")


@pytest.mark.parametrize("to", ["dc", "mtt", "dcbench", "folder"])
def test_formats_without_multi_formation_get_what_networks_see_and_say_so(tmp_path, to):
    original = made(metadata={"formation": 2})
    written = fastdd.export_synthetic(original, tmp_path / "out", to=to)
    assert f"{to} has no multi-formation: 4 images are decoded into 16 (factor 2)" in written.notes
    read, seen = fastdd.import_synthetic(tmp_path / "out"), original.decoded()
    assert read.formation == 1
    if to == "folder":
        assert torch.equal(read.to_uint8(), seen.to_uint8())
    else:
        assert torch.equal(read.images, seen.images)


def test_npz_holds_multi_formation(tmp_path):
    original = made(metadata={"formation": 2})
    read = through(original, tmp_path, "npz", "a.npz")
    same(read, original)
    assert read.formation == 2
