"""Exports that other loaders of images read: WebDataset's tar files, Hugging Face's tables."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import fastdd
from fastdd.data import SyntheticSet


@pytest.fixture
def made():
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 4 - 2
    soft = torch.full((6, 3), 0.1).scatter(1, torch.arange(6)[:, None] % 3, 0.8)
    metadata = {
        "class_names": ["cat", "dog", "é/x"],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "method": "dm",
        "debias": "none",
    }
    return SyntheticSet(images, torch.arange(6) % 3, metadata, soft_labels=soft)


def check(read: SyntheticSet, made: SyntheticSet) -> None:
    assert (read.to_uint8() == made.to_uint8()).all()
    assert (read.labels == made.labels).all()
    assert torch.allclose(read.soft_labels, made.soft_labels)
    assert read.metadata["class_names"] == made.metadata["class_names"]
    assert read.metadata["mean"] == made.metadata["mean"]
    assert read.metadata["method"] == "dm"


def test_tar_files_of_samples(made, tmp_path):
    file = tmp_path / "set.tar"
    fastdd.export_synthetic(made, file, to="webdataset")
    with tarfile.open(file) as archive:
        assert archive.getnames()[:4] == ["00000.png", "00000.cls", "00000.json", "00001.png"]
        assert archive.extractfile("00001.cls").read() == b"1"
    check(fastdd.import_synthetic(file), made)
    data = fastdd.data.Dataset.from_webdataset(file, size=8, test_split=0.5)
    assert len(data.train) == 3
    first = file.read_bytes()
    with pytest.raises(ValueError, match="exists"):
        fastdd.export_synthetic(made, file, to="webdataset")
    fastdd.export_synthetic(made, file, to="webdataset", force=True)
    assert file.read_bytes() == first
    # Of other images, what the header says does not count.
    file.write_bytes(first.replace(b'"mean": [0.5', b'"mean": [0.4'))
    assert fastdd.import_synthetic(file).metadata["mean"][0] == 0.4
    damaged = first[:200] + first[200:].replace(b"IDAT", b"XDAT", 1)
    file.write_bytes(damaged)
    with pytest.raises((RuntimeError, ValueError), match=r"set\.tar"):
        fastdd.import_synthetic(file)
    # Of the samples themselves: a class that is a word among numbers.
    file.write_bytes(first)
    number = tar_member(file, "00001.cls")
    file.write_bytes(first[:number] + b"x" + first[number + 1 :])
    with pytest.raises(ValueError, match=r"set\.tar: some classes are numbers, others are words, such as 'x'"):
        fastdd.import_synthetic(file)


@pytest.mark.parametrize("wrong", [None, 5, "x", [0.5], [0.5, "x", 0.1]])
@pytest.mark.parametrize("place", [0, 1])
def test_soft_labels_that_are_none_of_a_sample_or_no_numbers(tmp_path, wrong, place):
    file, image = tmp_path / "set.tar", io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    rows = [wrong if n == place else [0.5, 0.25, 0.25] for n in range(2)]
    with tarfile.open(file, "w") as archive:
        for n, row in enumerate(rows):
            about = {"label": n} if row is None else {"label": n, "soft_label": row}
            for name, content in ((f"{n}.png", image.getvalue()), (f"{n}.json", json.dumps(about).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    with pytest.raises(
        ValueError, match=r"set\.tar: the soft_label of [01] is .*, not a number a class as of the others"
    ):
        fastdd.import_synthetic(file, mean=[0.5] * 3, std=[0.5] * 3)


def tar_member(file, name: str) -> int:
    """Where its content begins."""
    with tarfile.open(file) as archive:
        return archive.getmember(name).offset_data


@pytest.mark.full
@pytest.mark.parametrize(("to", "name"), [("parquet", "set.parquet"), ("hf", "folder")])
def test_tables_of_hugging_face(made, tmp_path, to, name):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / name
    fastdd.export_synthetic(made, path, to=to)
    check(fastdd.import_synthetic(path), made)
    loaded = datasets.load_from_disk(str(path)) if to == "hf" else datasets.Dataset.from_parquet(str(path))
    assert loaded.features["label"].names == made.metadata["class_names"]
    assert (np.asarray(loaded[1]["image"]).transpose(2, 0, 1) == made.to_uint8()[1].numpy()).all()
    assert loaded["label"][:] == made.labels.tolist()


def test_without_the_package_the_cure_is_named(made, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    for to, name in (("parquet", "a.parquet"), ("hf", "a")):
        with pytest.raises(RuntimeError, match=r"pip install 'fastdd\[hf\]'"):
            fastdd.export_synthetic(made, tmp_path / name, to=to)
    assert not list(tmp_path.iterdir())
