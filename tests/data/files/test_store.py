"""The packed store: what is written is read back, whole or absent, and damage is told."""

import dataclasses
import json
import os
import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from fastdd.core import files
from fastdd.data import Dataset, Split, build, check_store, is_store, load, open_store, save_store
from fastdd.data.files import store as store_module


def toy(seed=0, n=9):
    random = np.random.RandomState(seed)

    def split(n):
        return Split(
            random.randint(0, 256, (n, 3, 4, 5)).astype(np.uint8),
            np.arange(n, dtype=np.int64) % 3,
            random.randint(0, 2, n).astype(np.int64),
        )

    names = ("a", "b", "ç"), ("light", "dark")
    provenance = {"files": [{"file": "x", "bytes": 3}], "seed": seed}
    return Dataset("toy", split(n), split(4), *names, (0.1, 0.2, 0.3), (0.5, 0.25, 1 / 3), provenance)


@pytest.fixture
def store(tmp_path):
    save_store(toy(), tmp_path / "store")
    return tmp_path / "store"


def test_what_is_written_is_read_back(store):
    original, read = toy(), open_store(store)
    assert read.digest() == original.digest()
    for field in ("name", "class_names", "group_names", "mean", "std", "provenance"):
        assert getattr(read, field) == getattr(original, field)
    assert check_store(store) == []
    assert load(store).digest() == load(str(store)).digest() == original.digest()


@settings(max_examples=20)
@given(images=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=4)))
def test_any_shape_is_read_back(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("any") / "store"
    rows = np.zeros(len(images), np.int64)
    channels = images.shape[1]
    names = (("one",), ("all",), (0.5,) * channels, (0.5,) * channels)
    save_store(Dataset("any", Split(images, rows, rows), Split(images, rows, rows), *names, {}), folder)
    np.testing.assert_array_equal(open_store(folder).train.images, images)


def test_images_are_memory_mapped_and_writing_to_them_leaves_the_file_alone(store):
    read = open_store(store)
    assert isinstance(read.train.images, np.memmap)
    before = (store / "train-images.npy").read_bytes()
    torch.from_numpy(read.train.images).zero_()
    assert (store / "train-images.npy").read_bytes() == before


def test_equal_data_sets_give_equal_bytes(store, tmp_path):
    save_store(toy(), tmp_path / "again")
    names = sorted(os.listdir(store))
    assert names == sorted(
        ["meta.json", *(f"{s}-{a}.npy" for s in ("train", "test") for a in ("images", "labels", "groups"))]
    )
    assert [(store / name).read_bytes() for name in names] == [
        (tmp_path / "again" / name).read_bytes() for name in names
    ]


def test_a_store_is_replaced_only_when_asked(store):
    with pytest.raises(FileExistsError, match="store exists"):
        save_store(toy(1), store)
    assert open_store(store).digest() == toy().digest()
    save_store(toy(1, n=20), store, overwrite=True)
    assert open_store(store).digest() == toy(1, n=20).digest()
    assert os.listdir(store.parent) == ["store"]


@pytest.fixture
def with_validation():
    return dataclasses.replace(toy(), validation=toy(3, n=5).train)


def test_validation_is_kept_beside_the_files_of_a_store_without(store, with_validation, tmp_path):
    save_store(with_validation, tmp_path / "more")
    read = open_store(tmp_path / "more")
    assert read.digest() == read.compute_digest() == with_validation.digest() != toy().digest()
    np.testing.assert_array_equal(read.validation.images, with_validation.validation.images)
    assert open_store(store).validation is None
    assert check_store(tmp_path / "more") == []
    before = {path.name: path.read_bytes() for path in store.glob("*.npy")}
    assert {name: (tmp_path / "more" / name).read_bytes() for name in before} == before


def test_damaged_validation_is_told(with_validation, tmp_path):
    save_store(with_validation, tmp_path / "more")
    file = tmp_path / "more/validation-images.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "the pixels, labels or groups changed" in check_store(tmp_path / "more")[0]
    file.unlink()
    with pytest.raises(RuntimeError, match=r"validation-images\.npy is missing or damaged"):
        open_store(tmp_path / "more")


def test_what_is_not_a_store_is_never_replaced(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    (precious / "meta.json").write_text("{}")
    with pytest.raises(FileExistsError, match="is not a packed store"):
        save_store(toy(), precious, overwrite=True)
    assert sorted(os.listdir(precious)) == ["meta.json", "thesis.txt"]


@pytest.mark.parametrize("there", [False, True])
def test_a_link_to_a_store_stays(tmp_path, there):
    store, link = tmp_path / "elsewhere" / "store", tmp_path / "link"
    store.parent.mkdir()
    if there:
        save_store(toy(), store)
    link.symlink_to(store)
    save_store(toy(1), link, overwrite=there)
    assert link.is_symlink()
    assert open_store(store).digest() == toy(1).digest() == open_store(link).digest()
    assert os.listdir(store.parent) == ["store"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_comes_there_while_a_store_is_built_stays(tmp_path, monkeypatch, overwrite):
    path, write_meta = tmp_path / "store", store_module.write_meta

    def meanwhile(*given):
        write_meta(*given)
        path.mkdir()
        (path / "thesis.txt").write_text("x")

    monkeypatch.setattr(store_module, "write_meta", meanwhile)
    with pytest.raises(FileExistsError, match=r"store exists and is not a packed store: choose another path"):
        save_store(toy(), path, overwrite=overwrite)
    assert os.listdir(tmp_path) == ["store"]
    assert os.listdir(path) == ["thesis.txt"]


def test_what_a_killed_save_left_goes_with_the_next(store):
    (store.parent / ".store.x1y2z3.partial" / "store").mkdir(parents=True)
    save_store(toy(1), store, overwrite=True)
    assert os.listdir(store.parent) == ["store"]


def test_a_build_in_memory_that_is_done_is_continued_by_opening_it(tmp_path):
    built = build("c-digits", tmp_path / "s")
    assert build("c-digits", tmp_path / "s", resume=True).digest() == built.digest()
    with pytest.raises(FileExistsError, match="of other data or other options: choose another path"):
        build("c-digits", tmp_path / "s", options={"bias_ratio": 0.5}, resume=True)
    with pytest.raises(FileExistsError, match="replace it with --force"):
        build("c-digits", tmp_path / "s")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, overwrite):
    path = tmp_path / "store"
    if overwrite:
        save_store(toy(), path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_store(toy(1), path, overwrite=overwrite)
    assert os.listdir(tmp_path) == (["store"] if overwrite else [])
    if overwrite:
        assert open_store(path).digest() == toy().digest()


def test_a_failed_rename_puts_the_old_store_back(store, monkeypatch):
    monkeypatch.setattr(files, "exchange", lambda *_: False)
    rename = os.rename

    def fail_once(source, target):
        if str(source).endswith("/store") and target == store and "partial" in str(source):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(OSError, match="Input/output error"):
        save_store(toy(1), store, overwrite=True)
    assert open_store(store).digest() == toy().digest()
    assert os.listdir(store.parent) == ["store"]


def test_a_store_that_a_kill_left_between_two_renames_is_found(store):
    digest = toy().digest()
    for making in (".store.abc.partial", ".store.building"):
        (store.parent / making).mkdir()
        os.rename(store, store.parent / making / "replaced")
        assert is_store(store)
        assert open_store(store).digest() == digest
        os.rename(store, store.parent / making / "replaced")
        with pytest.raises(FileExistsError, match=r"the packed store .* exists"):
            save_store(toy(1), store)
    held = store.parent / ".store.building"
    os.rename(store, held / "replaced")
    with files.hold(held):  # by whoever is about to put a new one there
        assert not is_store(store)
    assert is_store(store)


def test_a_store_takes_the_place_of_another_in_one_step(store, monkeypatch):
    seen, exchange = [], files.exchange
    monkeypatch.setattr(files, "exchange", lambda *paths: seen.append(exchange(*paths)) or seen[-1])
    save_store(toy(1), store, overwrite=True)
    assert seen == [sys.platform == "linux"]
    assert open_store(store).digest() == toy(1).digest()
    assert os.listdir(store.parent) == ["store"]


def test_the_parent_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: make it first"):
        save_store(toy(), tmp_path / "nowhere" / "store")


def test_a_folder_without_meta_is_no_store(tmp_path):
    assert not is_store(tmp_path)
    for function in (open_store, check_store):
        with pytest.raises(FileNotFoundError, match="is not a packed store"):
            function(tmp_path)


def test_changed_pixels_are_told_by_check(store):
    file = store / "test-images.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    (problem,) = check_store(store)
    assert "the pixels, labels or groups changed" in problem


@pytest.mark.parametrize("name", ["train-images.npy", "test-groups.npy"])
def test_a_truncated_or_missing_array_is_named(store, name):
    (store / name).write_bytes((store / name).read_bytes()[:-8])
    with pytest.raises(RuntimeError, match=f"{name} is missing or damaged"):
        open_store(store)
    (store / name).unlink()
    assert f"{name} is missing or damaged" in check_store(store)[0]


def test_an_array_of_another_shape_is_named(store):
    np.save(store / "train-labels.npy", np.zeros(5, np.int64))
    with pytest.raises(RuntimeError, match=r"train-labels\.npy has the shape \[5\], meta\.json says \[9\]"):
        open_store(store)


def test_labels_out_of_range_are_told(store):
    labels = np.load(store / "train-labels.npy")
    labels[4] = 3
    np.save(store / "train-labels.npy", labels)
    assert "train: label 3 at row 4 is outside 0..2" in check_store(store)[0]


def edit_meta(store, **changes):
    meta = json.loads((store / "meta.json").read_text())
    (store / "meta.json").write_text(json.dumps(meta | changes))


def test_another_schema_is_told(store):
    edit_meta(store, schema=2)
    with pytest.raises(RuntimeError, match="schema 2 can't be read, only 1"):
        open_store(store)


def test_a_class_without_training_images_is_told(store):
    edit_meta(store, class_names=["a", "b", "c", "d"])
    assert any("class 3 (d) has no training image" in problem for problem in check_store(store))


def test_an_opened_store_travels_to_another_process_without_its_pixels(tmp_path):
    original = toy(n=4000)
    save_store(original, tmp_path / "store")
    opened = open_store(tmp_path / "store")
    sent = pickle.dumps(opened)
    assert len(sent) < original.train.images.nbytes / 2
    received = pickle.loads(sent)
    assert isinstance(received.train.images, np.memmap)
    assert received.digest() == original.digest()
    part = Split(opened.train.images[10:12], opened.train.labels[10:12], opened.train.groups[10:12])
    assert np.array_equal(pickle.loads(pickle.dumps(part)).images, original.train.images[10:12])
