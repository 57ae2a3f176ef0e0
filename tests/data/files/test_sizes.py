"""Data sets' files that state more than they hold, or have no end: told before memory is taken."""

import gzip
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest

import fastdd
from fastdd.data.files import decode, store
from fastdd.data.files.readers import publisher
from fastdd.data.files.tree import Tree


def zeros(mebibytes: int) -> bytes:
    return gzip.compress(bytes(mebibytes << 20))


def test_gzipped_content_of_far_more():
    packed = zeros(70)
    with pytest.raises(RuntimeError, match=r"x.gz would unpack to .* bytes or more from .*get it again"):
        publisher.decompress(packed, "x.gz")
    assert publisher.decompress(gzip.compress(b"few"), "x.gz") == b"few"


def test_a_member_of_far_more(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        about = tarfile.TarInfo("cifar/data_batch_1")
        about.size = 70 << 20
        tar.addfile(about, io.BytesIO(bytes(about.size)))
    with pytest.raises(RuntimeError, match=r"c.tar.gz: data_batch_1 would unpack to 73,400,320 bytes"):
        publisher.members(file.getvalue(), tmp_path / "c.tar.gz", ["data_batch_1"])


def test_svhns_matrix_of_far_more(tmp_path):
    from scipy.io import savemat

    for split in ("train", "test"):
        matrices = {"X": np.zeros((32, 32, 3, 30000), np.uint8), "y": np.ones((30000, 1), np.uint8)}
        savemat(tmp_path / f"{split}_32x32.mat", matrices, do_compression=True)
    with pytest.raises(RuntimeError, match=r"train_32x32.mat would unpack to"):
        fastdd.data.load("svhn", tmp_path)


@pytest.mark.parametrize("array", ["images", "labels", "groups"])
def test_a_stores_array_that_is_cut_short(tmp_path, array):
    digits = fastdd.data.load("c-digits")
    store.save_store(digits, tmp_path / "s")
    file = tmp_path / "s" / f"train-{array}.npy"
    content = file.read_bytes()
    huge = content.replace(b"(1297,", b"(9999999999999,", 1)[: len(content)]
    file.write_bytes(huge)
    with pytest.raises(RuntimeError, match=rf"train-{array}.npy is missing or damaged"):
        store.open_store(tmp_path / "s")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    (tmp_path / "y.png").symlink_to("/dev/zero")
    tree = Tree(tmp_path)
    assert tree.images("") == ["x.png", "y.png"]
    batch = decode.Batch([tree.item(name) for name in tree.images("")], np.zeros(2, bool), decode.Recipe(8))
    why = "not a regular file but a folder, pipe or device: take it out of the folder"
    assert decode.decode_batch(batch).failed == [(0, why), (1, why)]


def test_a_member_larger_than_any_image(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "_MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.png", bytes(2000))
    (tmp_path / "0.png").write_bytes(bytes(2000))
    for place, name in ((tmp_path / "d.zip", "a/0.png"), (tmp_path, "0.png")):
        batch = decode.Batch([Tree(place).item(name)], np.zeros(1, bool), decode.Recipe(8))
        assert decode.decode_batch(batch).failed == [(0, "it is of 2,000 bytes, and no image has more than 1,000")]


def test_groups_that_are_no_numbers_of_groups():
    digits = fastdd.data.load("c-digits")
    groups = np.zeros(len(digits.train), np.int64)
    groups[5] = 10**12
    with pytest.raises(ValueError, match=r"group 1000000000000 of 1297 training images: number groups from 0 on"):
        digits.with_groups(groups)
