"""Data sets: what is refused, what is counted, what a digest sees."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastdd import import_synthetic
from fastdd.data import Dataset, Split, SyntheticSet


def split(n=12, classes=10, shape=(1, 2, 2), seed=0):
    random = np.random.RandomState(seed)
    return Split(
        random.randint(0, 256, (n, *shape)).astype(np.uint8),
        np.arange(n, dtype=np.int64) % classes,
        random.randint(0, 2, n).astype(np.int64),
    )


def dataset(**changes):
    fields = {
        "name": "toy",
        "train": split(),
        "test": split(6, seed=1),
        "class_names": tuple("0123456789"),
        "group_names": ("a", "b"),
        "mean": (0.5,),
        "std": (0.25,),
        "provenance": {"files": []},
    }
    return Dataset(**(fields | changes))


@pytest.mark.parametrize("shape", [(32, 16, 3), (28, 28, 1), (8, 8, 4)])
def test_images_with_channels_last_are_told_apart(shape, tmp_path):
    """Taken as they are, the rows of an image would be its channels."""
    message = rf"\[{', '.join(map(str, (12, *shape)))}\] looks like \[N, height, width, channels\]: transpose them"
    with pytest.raises(ValueError, match=message):
        split(shape=shape)
    images, names = torch.zeros(12, *shape), {"class_names": ["a"], "mean": [0.5] * shape[0], "std": [1] * shape[0]}
    with pytest.raises(ValueError, match=message):
        SyntheticSet(images, torch.zeros(12, dtype=torch.int64), names)
    np.savez(tmp_path / "set.npz", images=images.numpy(), labels=np.arange(12))
    with pytest.raises(ValueError, match="set.npz: images are .*" + message):
        import_synthetic(tmp_path / "set.npz", mean=[0.5], std=[1])


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 8, 3), (1, 28, 28), (4, 5, 1), (200, 1, 1), (64, 3, 3), (2, 9, 4)])
def test_images_with_channels_first_are_taken(shape):
    assert split(shape=shape).images.shape == (12, *shape)


def test_properties():
    data = dataset()
    assert (data.num_classes, data.num_groups, data.channels, data.size) == (10, 2, 1, (2, 2))


def test_a_label_outside_the_classes_is_named_with_its_row():
    train = split()
    train.labels[7] = 12
    with pytest.raises(ValueError, match=r"train: label 12 at row 7 is outside 0\.\.9"):
        dataset(train=train)


def test_a_negative_group_is_named_with_its_row():
    test = split(6)
    test.groups[3] = -1
    with pytest.raises(ValueError, match=r"test: group -1 at row 3 is outside 0\.\.1"):
        dataset(test=test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5, 0.5)}, r"mean needs 1 finite values"),
        ({"mean": (float("nan"),)}, r"mean needs 1 finite values"),
        ({"std": (0.0,)}, r"std must be positive, not \(0\.0,\)"),
        ({"class_names": ()}, r"toy needs at least one class name"),
        ({"test": split(3, shape=(1, 3, 2))}, r"\[1, 2, 2\] and test images of shape \[1, 3, 2\]"),
        ({"validation": split(3, shape=(1, 3, 2))}, r"\[1, 2, 2\] and validation images of shape \[1, 3, 2\]"),
        ({"validation": split(12, classes=12)}, r"validation: label 10 at row 10 is outside 0\.\.9"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataset(**changes)


def test_provenance_must_be_json():
    with pytest.raises(TypeError, match="provenance must be JSON-able"):
        dataset(provenance={"root": object()})


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("images", np.zeros((2, 1, 2, 2), np.float32), TypeError, "images must be a numpy array of uint8, not float32"),
        ("images", [[1]], TypeError, "images must be a numpy array of uint8, not list"),
        ("labels", np.zeros(2, np.int32), TypeError, "labels must be a numpy array of int64, not int32"),
        ("labels", np.zeros(3, np.int64), ValueError, r"labels must have the shape \[2\], one an image, not \[3\]"),
        ("groups", np.zeros((2, 1), np.int64), ValueError, r"groups must have the shape \[2\]"),
        ("images", np.zeros((2, 2, 2), np.uint8), ValueError, r"\[N, C, H, W\], not \[2, 2, 2\]"),
        ("images", np.zeros((0, 1, 2, 2), np.uint8), ValueError, "at least one image"),
    ],
)
def test_arrays_of_another_kind_are_refused(field, value, error, message):
    fields = {
        "images": np.zeros((2, 1, 2, 2), np.uint8),
        "labels": np.zeros(2, np.int64),
        "groups": np.zeros(2, np.int64),
    }
    with pytest.raises(error, match=message):
        Split(**(fields | {field: value}))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40))
def test_counts_are_those_of_a_loop(cells):
    labels, groups = np.array(cells, np.int64).T.copy()
    counts = Split(np.zeros((len(cells), 1, 1, 1), np.uint8), labels, groups).counts(4, 3)
    assert counts.tolist() == [[cells.count((c, g)) for g in range(3)] for c in range(4)]


def test_the_digest_sees_every_pixel_label_group_and_split():
    first = dataset()
    assert dataset().digest() == first.digest()
    seen = {first.digest()}
    for name in ("train", "test"):
        for array in ("images", "labels", "groups"):
            part = getattr(first, name)
            changed = getattr(part, array).copy()
            changed[-1] = 1 - changed[-1] if array == "groups" else changed[-1] ^ 1
            seen.add(dataset(**{name: dataclasses.replace(part, **{array: changed})}).digest())
    seen.add(dataset(train=first.test, test=first.train).digest())
    assert len(seen) == 8


def test_the_digest_is_that_of_both_splits_and_then_of_validation():
    """By a plain loop, so that a set without images for validation keeps the digest that it had before there were."""

    def literal(*parts):
        sha = hashlib.sha256()
        for part in parts:
            sha.update(repr(part.images.shape).encode() + part.images.tobytes())
            sha.update(part.labels.tobytes() + part.groups.tobytes())
        return sha.hexdigest()

    first, held = dataset(), split(5, seed=2)
    assert first.digest() == literal(first.train, first.test)
    assert dataset(validation=held).digest() == literal(first.train, first.test, held)


def test_other_groups_take_those_of_all_other_images():
    first = dataset()
    changed = dataclasses.replace(first, validation=first.test).with_groups(np.arange(len(first.train)))
    assert changed.train.groups.tolist() == list(range(len(first.train)))
    assert not changed.test.groups.any()
    assert not changed.validation.groups.any()
    np.testing.assert_array_equal(changed.validation.images, first.test.images)


def test_the_digest_does_not_depend_on_the_memory_layout():
    first = dataset()
    fortran = dataclasses.replace(first.train, images=np.asfortranarray(first.train.images))
    assert dataset(train=fortran).digest() == first.digest()
