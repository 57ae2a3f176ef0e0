"""Files that are damaged, or were made to harm, are told in one line that names them."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastdd import exchange
from fastdd.data import Dataset, Split, SyntheticSet, Zca, is_store, open_store, save_store
from fastdd.data.files.readers.cifar import parse_cifar_python
from fastdd.data.files.tree import Tree
from fastdd.data.sets.balance import drop_to_ratio
from fastdd.data.sets.folder import _read_groups
from fastdd.debias.density.kde.weights import load_array
from fastdd.experts import store as experts
from fastdd.ops import kde
from fastdd.report.results import check_row, read_json

DEEP = "[" * 100_000


def npy(path, header):
    """An array's file with any header."""
    text = (header + "\n").encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 99), }",
        "{'descr': 5, 'fortran_order': False, 'shape': (1,), }",
    ],
)
def test_an_array(tmp_path, header):
    npy(tmp_path / "E.npy", header)
    with pytest.raises(RuntimeError, match=r"E\.npy is not a \.npy file of numbers"):
        load_array(tmp_path / "E.npy")


def a_store(path):
    pixels = np.zeros((4, 3, 8, 8), np.uint8)
    split = Split(pixels, np.arange(4) % 2, np.zeros(4, np.int64))
    save_store(Dataset("toy", split, split, ("a", "b"), ("all",), (0.5,) * 3, (0.5,) * 3, {}), path)
    return path


@pytest.mark.parametrize("changes", [{"shapes": 5}, {"shapes": {}}, {"class_names": 3}, {"mean": [None] * 3}])
def test_a_store(tmp_path, changes):
    meta = a_store(tmp_path / "s") / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **changes}))
    with pytest.raises(RuntimeError, match="/s"):
        open_store(tmp_path / "s")


def test_a_store_of_which_a_header_is_cut(tmp_path):
    npy(a_store(tmp_path / "s") / "train-labels.npy", "{'descr': '<i8', 'fortran_order': False, 'shape': (4,")
    with pytest.raises(RuntimeError, match=r"train-labels\.npy is missing or damaged"):
        open_store(tmp_path / "s")
    (tmp_path / "s" / "meta.json").write_text(DEEP)
    assert not is_store(tmp_path / "s")


def test_a_zip_archive(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("words.txt", "n01\tfish " * 9)
    content = packed.getvalue().replace(b"fish", b"fisk", 1)
    (tmp_path / "d.zip").write_bytes(content)
    with pytest.raises(RuntimeError, match=r"cannot read .*d\.zip/words\.txt: Bad CRC-32"):
        Tree(tmp_path / "d.zip").read("words.txt")
    (tmp_path / "latin.txt").write_bytes(b"n01\tp\xe9ch\xe9")
    with pytest.raises(RuntimeError, match=r"latin\.txt is not UTF-8 text"):
        Tree(tmp_path).text("latin.txt")
    (tmp_path / "x.npz").write_bytes(content[:-30] + b"\x00" * 8 + content[-22:])
    with pytest.raises(RuntimeError, match=r"x\.npz"):
        exchange.read(tmp_path / "x.npz")


def test_a_table_of_groups(tmp_path):
    content = b"path,group\na.png," + b"x" * 200_000
    with pytest.raises(ValueError, match=r"groups\.csv, line 2: no row of path and group \(field larger"):
        _read_groups(content, tmp_path / "groups.csv", ["a.png"])


@pytest.mark.parametrize(
    "content", [{"meta": [], "rows": []}, {"meta": {}, "rows": 5}, {"meta": {}, "rows": [5]}, {"meta": {}}, DEEP]
)
def test_results(tmp_path, content):
    text = content if isinstance(content, str) else json.dumps({"schema": 1, **content})
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json"):
        read_json(tmp_path / "result.json")


@pytest.mark.parametrize("row", [{}, {"accuracy": 5}, {"accuracy": {"mean": 5.0}}])
def test_a_row_of_figures(tmp_path, row):
    with pytest.raises(ValueError, match=r"evaluations\.jsonl: a row"):
        check_row(row, (), ("accuracy",), tmp_path / "evaluations.jsonl")


ABOUT = {"class_names": ["a"], "mean": [0.5] * 3, "std": [1.0] * 3}
IMAGES, LABELS = torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64)
RUN = {"arch": "ConvNet", "dsa_strategy": "none"}


@pytest.mark.parametrize(
    "metadata",
    [
        *({"run": {"method": "dm"}}, {"run": 5}, {"run": RUN | {"arch": ["x"]}}, {"run": RUN | {"width": "4"}}),
        *({"provenance": 5}, {"provenance": {"parameters": [1]}}, {"ipc": 3.5}, {"method": 5}, {"versions": [1]}),
        *({"class_names": "a"}, {"class_names": []}, {"class_names": [5]}),
        *({"mean": [None] * 3}, {"mean": [True] * 3}, {"mean": [1e300] * 3}, {"mean": "abc"}, {"mean": 5}),
        *({"std": [0] * 3}, {"std": [1e-300] * 3}, {"std": [1e300] * 3}, {"std": ["1"] * 3}),
        *({"kde": {"diagnostics": 5}}, {"kde": {"diagnostics": {"counts": [1], "ess": ["x"]}}}),
    ],
    ids=str,
)
def test_the_metadata_of_a_set(tmp_path, metadata):
    with pytest.raises(ValueError, match="metadata"):
        SyntheticSet(IMAGES, LABELS, {**ABOUT, **metadata})
    about = json.dumps({**ABOUT, **metadata, "schema": 1})
    save_file({"images": IMAGES, "labels": LABELS}, tmp_path / "s", metadata={"fastdd": about})
    with pytest.raises(RuntimeError, match=r"s is damaged: .*metadata"):
        SyntheticSet.load(tmp_path / "s")


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "are not finite"), (-np.inf, "are not finite"), (1e30, "reach 1e")]
)
def test_images_of_a_set_that_no_network_can_train_on(tmp_path, value, words):
    images = IMAGES.repeat(3, 1, 1, 1)
    images[1, 2, 3, 4] = value
    SyntheticSet(images, LABELS.repeat(3), ABOUT).save(tmp_path / "s")
    with pytest.raises(RuntimeError, match=f"s is damaged: the values of image 1 {words}"):
        SyntheticSet.load(tmp_path / "s")


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-30, 1e30])
def test_a_whitening_that_is_none(tmp_path, value):
    matrix = torch.eye(4)
    matrix[2, 2] = value
    save_file({"zca.mean": torch.zeros(4), "zca.matrix": matrix}, tmp_path / "z")
    with pytest.raises(RuntimeError, match=r"z is damaged, .*matrix has .* at \[2, 2\]"):
        Zca.load(tmp_path / "z")


def test_the_manifest_of_experts(tmp_path):
    (tmp_path / experts.MANIFEST).write_text(DEEP)
    with pytest.raises(RuntimeError, match="is not a manifest of experts"):
        experts.read_manifest(tmp_path)
    opened = experts.Experts(torch.zeros(1, 2, 3), {"experts": [], "parameters": [{"shape": [3]}]}, None)
    with pytest.raises(RuntimeError, match="of the experts has no num_classes: train or import them again"):
        opened.about("num_classes")


def test_numbers_beyond_what_can_be_computed():
    with pytest.raises(ValueError, match="bandwidth must be finite"):
        kde(torch.zeros(3, 2), bandwidth=10**400)
    # Of a class without images: what takes the rows names it.
    labels, groups = np.array([0, 0, 0, 2, 2, 2]), np.array([0, 0, 1, 0, 1, 1])
    assert drop_to_ratio(labels, groups, 0.0, np.random.RandomState(0)).tolist() == [2, 3]
    batch = pickle.dumps({b"labels": [10**40], b"data": np.zeros((1, 3072), np.uint8)}, protocol=2)
    with pytest.raises(RuntimeError, match="data_batch_1"):
        parse_cifar_python(batch, "data_batch_1")
