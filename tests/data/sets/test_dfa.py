"""DFA's files, written from our own builders' pixels and read back; counts, tests, and what does not fit."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from fastdd.data import build, check_store, load
from fastdd.data.sets import dfa
from tests.data.sets.test_faces import picture


def written(folder, split, classes=True):
    for row, (image, label, group) in enumerate(zip(split.images, split.labels, split.groups, strict=True)):
        place = folder / str(label) if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{row:05}_{label}_{group}.png")


def by_name(split):
    """Rows of a split as the files' order has them."""
    return np.lexsort((np.arange(len(split)), split.labels))


@pytest.fixture
def cmnist(tmp_path, mnist_root):
    """Of LfF's Colored MNIST, in the folder of 5 %."""
    data = load("cmnist-lff", mnist_root, bias_ratio=0.8, validation=0.2)
    top = tmp_path / "cmnist"
    aligned = data.train.labels == data.train.groups
    for part, rows in (("align", aligned), ("conflict", ~aligned)):
        written(top / "5pct" / part, data.train.take(np.flatnonzero(rows)))
    written(top / "5pct/valid", data.validation, classes=False)
    written(top / "test", data.test)
    return tmp_path, data


def test_what_is_written_of_colored_mnist_is_read_back(cmnist, tmp_path):
    root, data = cmnist
    read = load("dfa-folder", root, conflict="5pct")
    assert read.size == (28, 28)
    assert read.class_names == data.class_names
    aligned = data.train.labels == data.train.groups
    order = [data.train.take(np.flatnonzero(rows)) for rows in (aligned, ~aligned)]
    parts = [split.take(by_name(split)) for split in order]
    for name in ("images", "labels", "groups"):
        expected = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(read.train, name), expected)
        np.testing.assert_array_equal(getattr(read.validation, name), getattr(data.validation, name))
        np.testing.assert_array_equal(getattr(read.test, name), getattr(data.test.take(by_name(data.test)), name))
    counts = f"{aligned.sum()} + {(~aligned).sum()} images in align and conflict; published are 52,551 + 2,449"
    assert read.provenance["remarks"] == [counts]
    built = build("dfa-folder", tmp_path / "store", root, options={"conflict": "5pct"})
    assert built.digest() == read.digest()
    assert check_store(tmp_path / "store") == []


def test_the_published_counts_are_no_remark(cmnist, monkeypatch):
    root, data = cmnist
    aligned = int((data.train.labels == data.train.groups).sum())
    monkeypatch.setitem(dfa.KINDS["cmnist"].published, "5pct", (aligned, len(data.train) - aligned))
    assert "remarks" not in load("dfa-folder", root, conflict="5pct").provenance
    monkeypatch.undo()
    totals = {name: {sum(pair) for pair in dfa.KINDS[name].published.values()} for name in ("cmnist", "cifar10c")}
    assert totals == {"cmnist": {55_000}, "cifar10c": {44_969, 45_032, 45_062}}


def test_archives_and_the_folder_itself(cmnist, tmp_path):
    root, _ = cmnist
    expected = load("dfa-folder", root, conflict="5pct").digest()
    assert load("dfa-folder", root / "cmnist", conflict="5pct").digest() == expected
    with zipfile.ZipFile(tmp_path / "cmnist.zip", "w") as archive:
        for file in sorted((root / "cmnist").rglob("*.png")):
            archive.write(file, file.relative_to(root / "cmnist"))
    (root / "cmnist").rename(root / "elsewhere")
    (root / "elsewhere/5pct").rename(root / "elsewhere/gone")
    assert load("dfa-folder", root, conflict="5pct").digest() == expected


def test_conflicting_test_images(cmnist):
    root, data = cmnist
    whole = load("dfa-folder", root, conflict="5pct")
    read = load("dfa-folder", root, conflict="5pct", test="conflict")
    assert (read.test.labels != read.test.groups).all()
    assert len(read.test) == (data.test.labels != data.test.groups).sum()
    np.testing.assert_array_equal(read.train.images, whole.train.images)


@pytest.fixture
def bffhq(tmp_path):
    """Shade 100 times the age, and 50 times the gender; no images for validation by class."""
    top = tmp_path / "bffhq"
    for age in (0, 1):
        for number in range(3):
            picture(top / f"0.5pct/align/{age}/{number}_{age}_{age}.png", 150 * age, (128, 128))
        picture(top / f"0.5pct/conflict/{age}/9_{age}_{1 - age}.png", 100 * age + 50 * (1 - age), (128, 128))
        for gender in (0, 1):
            for split in ("valid", "test"):
                picture(top / f"{split}/{age}{gender}_{age}_{gender}.png", 100 * age + 50 * gender, (128, 128))
    return tmp_path


def test_bffhq_is_tested_on_conflicting_images(bffhq):
    data = load("dfa-folder", bffhq, kind="bffhq")
    assert data.size == (64, 64)
    assert data.train.counts(2, 2).tolist() == [[3, 1], [1, 3]]
    assert data.test.counts(2, 2).tolist() == [[0, 1], [1, 0]]
    assert data.validation.counts(2, 2).tolist() == [[1, 1], [1, 1]]
    assert load("dfa-folder", bffhq, kind="bffhq", test="all", size=8).test.counts(2, 2).tolist() == [[1, 1], [1, 1]]
    for split in data.splits.values():
        assert split.images.mean((1, 2, 3)).tolist() == (100 * split.labels + 50 * split.groups).tolist()
    assert (data.class_names, data.group_names) == (("young", "old"), ("female", "male"))


def test_without_valid_there_is_no_validation(bffhq):
    (bffhq / "bffhq/valid").rename(bffhq / "gone")
    assert load("dfa-folder", bffhq, kind="bffhq", size=8).validation is None
    assert len(load("dfa-folder", bffhq, kind="bffhq", size=8, validation=0.3).validation) == 2


def test_names_count(bffhq):
    picture(bffhq / "bffhq/0.5pct/align/0/8_0_1.png", 50)
    (remark,) = load("dfa-folder", bffhq, kind="bffhq", size=8).provenance["remarks"]
    assert remark == "1 images in align are not so by their names, which count"
    for name, why in (
        ("align/0/7_1_1.png", r"align/0/7_1_1\.png is of class 1 by its name, not by its folder"),
        ("align/0/7_0_2.png", r"align/0/7_0_2\.png is of group 2, and there are 0 to 1"),
        ("align/0/7_0_99999999999999999999.png", r"is of group 99999999999999999999, and there are 0 to 1"),
        ("align/0/face.png", r"align/0/face\.png is not named <id>_<class>_<group>\.png"),
    ):
        picture(bffhq / "bffhq/0.5pct" / name, 0)
        with pytest.raises(RuntimeError, match=why):
            load("dfa-folder", bffhq, kind="bffhq")
        (bffhq / "bffhq/0.5pct" / name).unlink()


def test_what_does_not_fit(bffhq):
    for options, why in (
        ({"kind": "mnist"}, "kind of dfa-folder must be one of cmnist, cifar10c, bffhq, not 'mnist'"),
        ({"test": "aligned"}, "test of dfa-folder must be all or conflict, or left out, not 'aligned'"),
        ({"size": "big"}, "size of dfa-folder must be a whole number, not 'big'"),
        ({"kind": "bffhq", "size": 0}, "size must be at least 1 pixel, not 0"),
    ):
        with pytest.raises(ValueError, match=why):
            load("dfa-folder", bffhq, **options)
    for options in ({}, {"kind": "cifar10c"}, {"kind": "bffhq", "conflict": "1pct"}):
        with pytest.raises(FileNotFoundError, match=r"pct/align and .*pct/conflict not found in .*; offered at https"):
            load("dfa-folder", bffhq, **options)
    (bffhq / "bffhq/test").rename(bffhq / "gone")
    with pytest.raises(FileNotFoundError, match=r"DFA's bffhq: no images in test of .*0\.5pct; offered at"):
        load("dfa-folder", bffhq, kind="bffhq")
