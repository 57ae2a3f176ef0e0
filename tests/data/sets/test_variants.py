"""Balanced originals, label noise and group noise: exact counts, and nothing else touched."""

import dataclasses
import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdd.data import load, options
from fastdd.data.dataset import Split
from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.files.tree import Tree
from fastdd.data.sets import variants


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=60), st.integers(0, 2**32 - 1))
def test_a_balanced_part_has_the_smallest_cell_everywhere(pairs, seed):
    pairs = [(label, group) for label in range(3) for group in range(2)] + pairs
    labels, groups = np.array(pairs).T
    split = Split(np.zeros((len(pairs), 1, 1, 1), np.uint8), labels, groups)
    rows = variants.balanced_rows(labels, groups, 3, 2, seed)
    assert (np.diff(rows) > 0).all()
    assert split.take(rows).counts(3, 2).tolist() == [[split.counts(3, 2).min()] * 2] * 3


@given(st.lists(st.integers(0, 4), min_size=1, max_size=300), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_noise_hits_exactly_its_share(values, share, seed):
    values = np.array(values)
    labels = variants.noisy_labels(values, share, 5, seed)
    assert (labels != values).sum() == round(len(values) * share)
    assert set(labels) <= set(range(5))
    groups = variants.noisy_groups(values, share, 5, seed)
    assert (groups != values).sum() <= round(len(values) * share)
    assert set(groups) <= set(range(5))


def test_noise_is_uniform():
    """Wrong labels over the nine others, groups over all ten: chi-squared below its 99.9 % point."""
    values = np.full(20000, 3)
    labels = np.bincount(variants.noisy_labels(values, 1.0, 10), minlength=10)
    groups = np.bincount(variants.noisy_groups(values, 1.0, 10), minlength=10)
    assert labels[3] == 0
    for counts, expected in ((np.delete(labels, 3), 20000 / 9), (groups, 2000)):
        assert ((counts - expected) ** 2 / expected).sum() < 28


def test_options_of_a_biased_set():
    plain = load("c-digits")
    noisy = load("c-digits", label_noise=0.2, group_noise=0.5)
    assert (noisy.train.labels != plain.train.labels).sum() == round(1297 * 0.2)
    # A tenth of the drawn groups are the true ones.
    assert abs((noisy.train.groups != plain.train.groups).sum() - 1297 * 0.5 * 0.9) < 40
    np.testing.assert_array_equal(noisy.train.images, plain.train.images)
    for name in ("images", "labels", "groups"):
        np.testing.assert_array_equal(getattr(noisy.test, name), getattr(plain.test, name))
    again = variants.noisy_labels(plain.train.labels, 0.2, 10, 0)
    np.testing.assert_array_equal(noisy.train.labels, again)
    assert noisy.provenance["parameters"]["label_noise"] == 0.2
    # Another seed of the set is another draw of the noise.
    seeded = load("c-digits", seed=1)
    wrong = (load("c-digits", seed=1, label_noise=0.2).train.labels != seeded.train.labels).nonzero()[0]
    assert wrong.tolist() != (noisy.train.labels != plain.train.labels).nonzero()[0].tolist()


def test_a_balanced_biased_set():
    data = load("c-digits", balanced=True)
    smallest = load("c-digits").train.counts(10, 10).min()
    assert (data.train.counts(10, 10) == smallest).all()
    assert len(data.test) == 5000
    both = load("c-digits", balanced=True, label_noise=0.5)
    assert (both.train.labels != data.train.labels).sum() == len(data.train) // 2


def test_a_set_of_image_files(tmp_path):
    """A plan is changed as a data set is; what makes the pixels is not."""
    rows = Rows([f"{row}.png" for row in range(40)], np.arange(40) % 2, np.arange(40) // 30, np.arange(40) < 30)
    plan = Plan("gray", Tree(tmp_path), rows, rows, ("a", "b"), ("gray", "colour"), Recipe(8))

    def load_plan(root, *, seed=3, balanced=True):
        return plan

    changed = variants.with_variants(load_plan)
    assert list(inspect.signature(changed).parameters) == [
        "root",
        "seed",
        "balanced",
        "label_noise",
        "group_noise",
        "missing_groups",
        "val_split",
        "validation",
        "drop_to",
    ]
    noisy = changed(None, label_noise=0.5, group_noise=0.5)
    assert (noisy.train.labels != rows.labels).sum() == 20
    assert (noisy.train.groups != rows.groups).any()
    assert (noisy.train.names, noisy.test) == (rows.names, rows)
    np.testing.assert_array_equal(noisy.train.gray, rows.gray)
    fair = variants.varied(plan, balanced=True).train
    assert np.bincount(fair.labels * 2 + fair.groups).tolist() == [5] * 4
    np.testing.assert_array_equal(fair.gray, fair.groups == 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=80), st.floats(0, 1))
def test_every_cell_gives_its_share_to_the_test(pairs, share):
    labels, groups = np.array(pairs).T
    held = variants.rows_for_test(labels, groups, share)
    for cell in set(pairs):
        here = (labels == cell[0]) & (groups == cell[1])
        assert held[here].sum() == round(here.sum() * share)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=80), st.floats(0, 1))
def test_a_cell_gives_its_share_to_validation_but_for_its_first_and_last_image(pairs, share):
    labels, groups = np.array(pairs).T
    held = variants.validation_rows(labels, groups, share)
    for cell in set(pairs):
        here = (labels == cell[0]) & (groups == cell[1])
        n = here.sum()
        assert held[here].sum() == (0 if n == 1 else min(max(round(n * share), 1), n - 1))


def test_validation_is_held_out_and_the_test_stays():
    plain = load("c-digits")
    made = load("c-digits", validation=0.1, label_noise=0.5, balanced=True)
    held = load("c-digits", validation=0.1)
    assert plain.validation is None
    assert len(held.train) + len(held.validation) == len(plain.train)
    assert len({image.tobytes() for image in plain.train.images}) == len(plain.train)
    of = dict(zip((image.tobytes() for image in plain.train.images), plain.train.labels, strict=True))
    rest = {image.tobytes() for image in held.train.images}
    for data in (held, made):
        # Of each image its true label, whatever is done to training.
        images = [image.tobytes() for image in data.validation.images]
        assert [of[image] for image in images] == data.validation.labels.tolist()
        assert not rest & set(images)
        np.testing.assert_array_equal(data.test.images, plain.test.images)
    counts, before = held.validation.counts(10, 10), plain.train.counts(10, 10)
    expected = np.where(before == 1, 0, np.minimum(np.maximum(np.round(before * 0.1), 1), before - 1))
    np.testing.assert_array_equal(counts, np.where(before, expected, 0))
    np.testing.assert_array_equal(made.validation.images, held.validation.images)
    assert held.provenance["parameters"]["validation"] == 0.1
    assert "validation" not in plain.provenance["parameters"]
    assert held.tested_on == "test"
    assert load("c-digits", validation=0.0).digest() == load("c-digits", validation=None).digest() == plain.digest()
    assert load("c-digits", validation=0.1, seed=1).validation.labels.tolist() != held.validation.labels.tolist()


def test_training_is_dropped_to_a_level_beside_unchanged_validation():
    held, level = (load("c-digits", bias_ratio=0.6, validation=0.3, drop_to=share) for share in (None, 0.98))
    aligned, before = np.diag(level.train.counts(10, 10)), held.train.counts(10, 10)
    # Nothing of the aligned groups goes; of a class, 2 of 98 are others.
    np.testing.assert_array_equal(aligned, np.diag(before))
    others = level.train.counts(10, 10).sum(1) - aligned
    assert others.tolist() == [round(n * 0.02 / 0.98) for n in aligned]
    np.testing.assert_array_equal(level.validation.images, held.validation.images)
    np.testing.assert_array_equal(level.test.images, held.test.images)
    kept = {image.tobytes() for image in held.train.images}
    assert kept > {image.tobytes() for image in level.train.images}
    assert level.provenance["parameters"]["drop_to"] == 0.98
    assert "drop_to" not in held.provenance["parameters"]
    rows = np.arange(100)
    even = dataclasses.replace(held, train=Split(held.train.images[rows], rows % 10, rows // 10))
    with pytest.raises(ValueError, match=r"drop_to 0\.9 raises the bias that c-digits has, and its classes have their"):
        variants.varied(even, drop_to=0.9)
    with pytest.raises(ValueError, match=r"drop_to must lie in 0\.\.1, not 2"):
        load("c-digits", drop_to=2.0)


def test_validation_beside_held_out_test_images():
    both, one = load("c-digits", val_split=0.2, validation=0.1), load("c-digits", val_split=0.2)
    np.testing.assert_array_equal(both.test.images, one.test.images)
    splits = [{image.tobytes() for image in split.images} for split in both.splits.values()]
    assert sum(map(len, splits)) == len(set.union(*splits)) == len(one.train) + len(one.test)


def test_test_images_that_are_held_out_are_training_images_that_are_held_out():
    plain, made = load("c-digits"), load("c-digits", val_split=0.2, label_noise=0.3)
    assert len(made.train) + len(made.test) == len(plain.train)
    rows = {image.tobytes() for image in made.train.images}
    held = {image.tobytes() for image in made.test.images}
    assert not rows & held
    of = dict(zip((image.tobytes() for image in plain.train.images), plain.train.labels, strict=True))
    assert all(of[image.tobytes()] == label for image, label in zip(made.test.images, made.test.labels, strict=True))
    assert (made.test.counts(10, 10).sum(1) / plain.train.counts(10, 10).sum(1)).round(1).tolist() == [0.2] * 10


def test_missing_groups_are_missing_in_the_test_images_only():
    plain, made = load("c-digits"), load("c-digits", missing_groups=3)
    kept = plain.test.groups < 7
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(made.test.images, plain.test.images[kept])
    np.testing.assert_array_equal(made.test.groups, plain.test.groups[kept])
    np.testing.assert_array_equal(made.train.images, plain.train.images)
    assert made.num_groups == 10


def test_only_biased_sets_have_them():
    assert "label_noise" not in options("mnist")
    assert set(options("mnist")) == {"val_split", "validation"}
    for name in ("c-digits", "c-mnist-bg", "cifar10-s", "cmnist-lff", "ccifar10-dd", "bg-fmnist", "celeba", "utkface"):
        assert {"balanced", "label_noise", "group_noise", "missing_groups"} <= set(options(name))


def test_bad_input():
    for given_options, why in (
        ({"label_noise": 1.5}, "label_noise must lie in 0..1, not 1.5"),
        ({"val_split": 1.0}, "val_split 1 leaves no images on one side"),
        ({"validation": 1}, "validation 1 leaves nothing to train on: give a smaller share of the training images"),
        ({"validation": "yes"}, r"validation must lie in 0\.\.1, not 'yes'"),
        ({"group_noise": -0.1}, "group_noise must lie in 0..1, not -0.1"),
        ({"missing_groups": 10}, r"missing_groups must lie in 0\.\.9 for c-digits, not 10"),
        ({"balanced": True, "bias_ratio": 1.0}, "class 0 has none in group 1"),
    ):
        with pytest.raises(ValueError, match=why):
            load("c-digits", **given_options)
