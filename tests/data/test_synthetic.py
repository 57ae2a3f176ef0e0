"""The synthetic set's file: read back as written, byte-identical, and one line for each way it can be wrong."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fastdd.data import SyntheticSet

METADATA = {
    "class_names": ("cat", "dog"),
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2023, 0.1994, 0.2010),
    "method": "dm",
    "seed": 0,
}


def synthetic(**changes):
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return SyntheticSet(**({"images": images, "labels": torch.tensor([0, 0, 1, 1]), "metadata": METADATA} | changes))


@pytest.fixture
def saved(tmp_path):
    synthetic().save(tmp_path / "s.safetensors")
    return tmp_path / "s.safetensors"


def test_what_is_written_is_read_back(saved):
    original, read = synthetic(), SyntheticSet.load(saved)
    assert torch.equal(read.images, original.images)
    assert torch.equal(read.labels, original.labels)
    assert read.metadata == original.metadata
    assert read.metadata["schema"] == 1
    assert read.metadata["mean"] == [0.4914, 0.4822, 0.4465]


def test_equal_content_gives_equal_bytes_whatever_the_order_and_layout(saved, tmp_path):
    reversed_metadata = dict(reversed(METADATA.items()))
    images = synthetic().images.to(memory_format=torch.channels_last).requires_grad_()
    synthetic(images=images, metadata=reversed_metadata).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_the_file_can_be_read_by_hand(tmp_path):
    images = torch.arange(8, dtype=torch.float32).view(2, 1, 2, 2)
    metadata = {"class_names": ["a", "b"], "mean": [0.5], "std": [0.5]}
    SyntheticSet(images, torch.tensor([0, 1]), metadata).save(tmp_path / "s")
    content = (tmp_path / "s").read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:start])
    assert json.loads(header["__metadata__"]["fastdd"]) == metadata | {"schema": 1}
    arrays = {}
    for name, code in (("images", "<f4"), ("labels", "<i8")):
        first, last = header[name]["data_offsets"]
        arrays[name] = np.frombuffer(content[start + first : start + last], code).tolist()
    assert arrays == {"images": list(range(8)), "labels": [0, 1]}


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 1)), min_size=1, max_size=4),
)
def test_every_pixel_survives_normalisation(constants):
    mean, std = zip(*constants, strict=True)
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, len(mean), 1, 1)
    shape = (1, -1, 1, 1)
    images = (pixels / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    data = SyntheticSet(images, torch.zeros(1, dtype=torch.int64), {"class_names": ["a"], "mean": mean, "std": std})
    assert torch.equal(data.to_uint8(), pixels)


def test_pixels_outside_the_range_are_clamped():
    images = torch.tensor([-100.0, 0.0, 100.0, 1.0]).view(1, 1, 2, 2)
    data = SyntheticSet(images, torch.tensor([0]), {"class_names": ["a"], "mean": [0.5], "std": [0.25]})
    # 0.5 * 255 = 127.5 and 0.75 * 255 = 191.25
    assert data.to_uint8().flatten().tolist() == [0, 128, 255, 191]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"images": torch.zeros(4, 3, 8, 8, dtype=torch.float64)},
            TypeError,
            "images must be float32, not torch.float64",
        ),
        ({"labels": torch.zeros(4)}, TypeError, "labels must be int64, not torch.float32"),
        ({"images": torch.zeros(4, 8, 8)}, ValueError, r"\[M, C, H, W\], not \[4, 8, 8\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, r"labels must have the shape \[4\], not \[3\]"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, ValueError, r"labels 0\.\.2 are outside 0\.\.1"),
        ({"metadata": {"mean": (0.5,) * 3}}, ValueError, "metadata needs class_names, std"),
        ({"metadata": METADATA | {"std": (1.0,)}}, ValueError, "metadata std needs 3 values, one a channel"),
        ({"metadata": METADATA | {"net": object()}}, TypeError, "metadata must be JSON-able"),
        ({"metadata": METADATA | {"loss": float("nan")}}, TypeError, "metadata must be JSON-able"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        synthetic(**changes)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no synthetic set .*none\.safetensors"):
        SyntheticSet.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"x" * 100, b"\x02" + b"\0" * 7 + b"[]"])
def test_another_kind_of_file_is_named(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(RuntimeError, match="s is not a safetensors file"):
        SyntheticSet.load(tmp_path / "s")


@pytest.mark.parametrize("keep", [60, -1])
def test_a_truncated_file_is_named(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(RuntimeError, match=r"s\.safetensors is truncated"):
        SyntheticSet.load(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"fastdd": "{"}])
def test_anothers_safetensors_file_is_named(tmp_path, metadata):
    save_file({"weight": torch.zeros(2)}, tmp_path / "s", metadata=metadata)
    with pytest.raises(RuntimeError, match="is a safetensors file but not a synthetic set"):
        SyntheticSet.load(tmp_path / "s")


def test_a_newer_schema_is_told(tmp_path):
    save_file({"images": torch.zeros(2)}, tmp_path / "s", metadata={"fastdd": json.dumps({"schema": 2})})
    with pytest.raises(RuntimeError, match="has the schema 2, this version reads 1"):
        SyntheticSet.load(tmp_path / "s")


def test_a_set_without_labels_is_told(tmp_path):
    text = json.dumps(METADATA | {"schema": 1})
    save_file({"images": torch.zeros(1, 3, 2, 2)}, tmp_path / "s", metadata={"fastdd": text})
    with pytest.raises(RuntimeError, match="s is damaged: 'labels'"):
        SyntheticSet.load(tmp_path / "s")


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_header_is_one_line_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    synthetic().save(folder / "s")
    content = bytearray((folder / "s").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 500))] = data.draw(st.integers(0, 255))
    (folder / "s").write_bytes(content)
    try:
        read = SyntheticSet.load(folder / "s")
        line = f"{folder / 's'} is sound"
        assert len(read.images) == len(read.labels)
    except RuntimeError as error:
        line = str(error)
    assert line.startswith(f"{folder / 's'} ")
