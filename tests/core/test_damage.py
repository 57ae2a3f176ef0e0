"""Files that are damaged, or were made to harm, are told in one line that names them."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fastdd import cli, exchange
from fastdd.api.samples import read_groups
from fastdd.core import bounds, files, reading
from fastdd.data import Dataset, Split, SyntheticSet, Zca, is_store, open_store, save_store
from fastdd.data.catalog import build, load
from fastdd.data.files.readers.cifar import parse_cifar_python
from fastdd.data.files.table import read_table
from fastdd.data.files.tree import Tree
from fastdd.data.sets.balance import drop_to_ratio
from fastdd.debias.density.kde.weights import KdeWeights, load_array
from fastdd.experts import store as experts
from fastdd.methods import Method
from fastdd.ops import kde
from fastdd.report.results import check_row, read_results
from fastdd.session import folder as session_folder

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


@pytest.mark.parametrize(
    "changes",
    [
        *({"shapes": 5}, {"shapes": {}}, {"class_names": 3}, {"class_names": [1, 2]}, {"class_names": "ab"}),
        *({"mean": [None] * 3}, {"std": [True] * 3}, {"std": [1e-300] * 3}, {"name": 5}, {"digest": None}),
        *({"provenance": []}, {"provenance": {"parameters": 5}}, {"schema": [1]}),
    ],
    ids=str,
)
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


@pytest.mark.parametrize("line", ["{", "[]", '{"rows": {"train": -1, "test": 0}}', "\xff", "FIRST", "LEVELS"])
def test_the_journal_of_a_build(tmp_path, line):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "d" / split / name / "0.png")
    broken = tmp_path / "d" / "test" / "b" / "1.png"
    broken.write_bytes(b"x")
    with pytest.raises(RuntimeError, match="cannot decode"):
        build("folder", tmp_path / "s", tmp_path / "d", options={"size": 8}, workers=1)
    broken.unlink()
    Image.new("RGB", (8, 8)).save(broken)
    journal = tmp_path / ".s.building" / "journal.jsonl"
    if line == "LEVELS":  # of which mean and std are made
        first, noted = journal.read_text().splitlines()
        levels = json.loads(noted)
        levels["levels"][0][5] += 1
        journal.write_text(f"{first}\n{json.dumps(levels)}\n")
    elif line == "FIRST":
        journal.write_text("5\n")
    else:
        journal.write_bytes(journal.read_bytes() + line.encode("latin1") + b"\n")
    with pytest.raises(ValueError, match=r"journal\.jsonl is damaged: start anew with --force: "):
        build("folder", tmp_path / "s", tmp_path / "d", options={"size": 8}, workers=1, resume=True)


def test_a_name_that_is_not_utf8(tmp_path):
    for split in ("train", "test"):
        folder = os.fsencode(tmp_path) + b"/" + split.encode() + b"/caf\xe9"
        os.makedirs(folder)
        Image.new("RGB", (8, 8)).save(os.fsdecode(folder) + "/0.png")
    with pytest.raises(ValueError, match=r"the name 'caf\\udce9' is not UTF-8: rename it"):
        load("folder", tmp_path, size=8)


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
        read_table(content, tmp_path / "groups.csv", ["path", "group"])


@pytest.mark.parametrize(
    "content", [{"meta": [], "rows": []}, {"meta": {}, "rows": 5}, {"meta": {}, "rows": [5]}, {"meta": {}}, DEEP]
)
def test_results(tmp_path, content):
    text = content if isinstance(content, str) else json.dumps({"schema": 1, **content})
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json"):
        read_results(tmp_path / "result.json")


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
    sound = {"schema": 1, "config": {"dtype": "fp32", "epochs": 2}, "parameters": [{"name": "w", "shape": [3]}]}
    sound |= {"experts": [{"sha256": "0"}], "zca_digest": None}
    for changes, words in (
        ({"experts": [{"sha256": 5}]}, "an expert is"),
        ({"experts": []}, "it is of 0 experts"),
        ({"config": {"dtype": "fp32", "epochs": 2.5}}, "epochs"),
        ({"config": {"dtype": "fp9", "epochs": 2}}, "dtype is 'fp9'"),
        ({"parameters": [{"name": "w", "shape": [-3]}]}, "a parameter is"),
        ({"size": [8]}, r"size is \[8\]"),
        ({"class_names": 5}, "class_names is 5"),
    ):
        (tmp_path / experts.MANIFEST).write_text(json.dumps(sound | changes))
        with pytest.raises(RuntimeError, match=f"is not a manifest of experts: .*{words}"):
            experts.read_manifest(tmp_path)
    (tmp_path / experts.MANIFEST).write_text(json.dumps(sound))
    assert experts.read_manifest(tmp_path) == sound
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


def test_a_pipe_in_a_folder_that_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.pt")
    with pytest.raises(OSError, match=r"checkpoint\.pt is a pipe or a device: take it out of the folder"):
        files.hold(tmp_path)
    for read in (reading.content, reading.text):
        with pytest.raises(OSError, match="not a regular file but a pipe or device"):
            read(tmp_path / "checkpoint.pt")
    with pytest.raises(RuntimeError, match=r"checkpoint\.pt is not a \.npy file of numbers, but a .*pipe"):
        bounds.map_npy(tmp_path / "checkpoint.pt")


def test_json_that_no_one_writes(tmp_path):
    for text, words in (
        ("[" * 100_000, "nested too deep"),
        ("[NaN]", "NaN is no JSON"),
        ("[-1e999]", "'-1e999' is no JSON"),
        ("[1e3, 1" + "0" * 5000 + "]", "digits"),
    ):
        with pytest.raises(ValueError, match=words):
            reading.parse_json(text)
    assert reading.parse_json('{"a": [1e308, -5, null]}') == {"a": [1e308, -5, None]}
    (tmp_path / "latin").write_bytes(b"p\xe9ch\xe9")
    with pytest.raises(ValueError, match=r"latin is not UTF-8 text \(.* at byte 1\)"):
        reading.text(tmp_path / "latin")


@pytest.mark.parametrize("kind", ["S0", "U0", "V0"])
def test_an_array_of_values_without_size(tmp_path, kind):
    """numpy ends the process at these."""
    npy(tmp_path / "E.npy", f"{{'descr': '|{kind}', 'fortran_order': False, 'shape': (4,), }}")
    with pytest.raises(RuntimeError, match=r"E\.npy is not a \.npy file of numbers.*no header of an array"):
        load_array(tmp_path / "E.npy")


def test_groups_in_a_file_are_told_with_it(tmp_path):
    split = Split(np.zeros((4, 3, 8, 8), np.uint8), np.arange(4) % 2, np.zeros(4, np.int64))
    data = Dataset("toy", split, split, ("a", "b"), ("all",), (0.5,) * 3, (0.5,) * 3, {})
    for groups in (np.array([-1, 0, 0, 0]), np.array([9, 0, 0, 0]), np.zeros(4), np.array([b"a"] * 4), np.zeros(3)):
        np.save(tmp_path / "g.npy", groups)
        with pytest.raises(ValueError, match=r"g\.npy is of no groups: group"):
            read_groups(data, tmp_path / "g.npy")


@pytest.mark.parametrize(
    "change",
    [
        *({"metadata": {"dataset_digest": 5}}, {"metadata": {"dataset": [1]}}, {"metadata": {"gap": "x"}}),
        *({"embeddings": np.full((4, 2), np.nan, np.float32)}, {"log_density": np.zeros(3, np.float32)}),
    ],
    ids=["digest", "data set", "gap", "embeddings", "densities"],
)
def test_weights(tmp_path, change):
    zeros = np.zeros(4, np.float32)
    sound = {"weights": zeros + 0.5, "log_density": zeros, "embeddings": np.zeros((4, 2), np.float32), "metadata": {}}
    KdeWeights(**sound).save(tmp_path / "w")
    KdeWeights.load(tmp_path / "w")
    KdeWeights(**{**sound, **change}).save(tmp_path / "w")
    with pytest.raises(RuntimeError, match=r"w is damaged, .*its"):
        KdeWeights.load(tmp_path / "w")


def test_checkpoints_with_a_right_digest(tmp_path):
    """What no run writes, whatever the digest says of it."""
    folder = session_folder.RunFolder.__new__(session_folder.RunFolder)
    folder.path = tmp_path
    plain = torch.zeros(2, 3)
    for step, images in (
        (3.5, plain),
        (-5, plain),
        (True, plain),
        (1, plain + torch.nan),
        (1, plain[:1].expand(1000, 3)),
        (1, plain.to_sparse()),
    ):
        state = session_folder.State(step, {"images": images}, 1.0)
        digest = "" if images.is_sparse else state.digest()
        content = {"schema": 2, "step": step, "tensors": state.tensors, "seconds": 1.0, "digest": digest}
        torch.save(content, tmp_path / session_folder.CHECKPOINT)
        with pytest.warns(RuntimeWarning, match="is damaged and is not used"), pytest.raises(RuntimeError, match="all"):
            folder.load()


def test_no_reason_is_advice_to_run_a_file(tmp_path):
    """What torch.load says of a pickle that is none of its own, or would run code, tells to load it all the same."""
    folder = session_folder.RunFolder.__new__(session_folder.RunFolder)
    folder.path = tmp_path
    for content, why in (
        (b"hi", "its pickle is not one of torch.save's"),
        (b"xx\n", "its pickle is not one of torch.save's"),
        (b"cos\nsystem\n(S'true'\ntR.", r"it would run code \((os|posix)\.system\)"),
    ):
        (tmp_path / session_folder.CHECKPOINT).write_bytes(content)
        told = pytest.warns(RuntimeWarning, match=f"checkpoint.pt is damaged and is not used: {why}$")
        with told, pytest.raises(RuntimeError, match="all"):
            folder.load()


def test_a_checkpoint_of_other_shapes_with_the_same_bytes():
    method = Method.__new__(Method)
    method.state = lambda: {"images": torch.zeros(2, 3)}
    for found in (torch.zeros(1, 2, 3), torch.zeros(2, 3, dtype=torch.int32)):
        with pytest.raises(ValueError, match=r"images are torch\..*, not torch\.float32 \[2, 3\]"):
            method.restore({"images": found})


def test_lines_of_any_length_are_shortened(capsys):
    assert cli._report(ValueError("x" * 5000))[0] == "error: " + "x" * 750 + " ... " + "x" * 250


def test_a_settings_file_is_told_with_its_value(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("ipc: 3.5x\n")
    with pytest.raises(SystemExit):
        cli.main(["distill", "--config", str(tmp_path / "c.yaml")])
    assert f"{tmp_path / 'c.yaml'}: --ipc must be a whole number, not '3.5x'\n" in capsys.readouterr().err


def test_a_pickle_that_numbers_its_objects_beyond_its_bytes():
    """Python takes 64 GB for this one."""
    batch = pickle.dumps({b"labels": [1], b"data": np.zeros((1, 3072), np.uint8)}, protocol=2)
    assert parse_cifar_python(batch, "data_batch_1")[1].tolist() == [1]
    place = batch.index(b"q")
    far = batch[:place] + b"r\xff\xff\xff\xff" + batch[place + 2 :]
    with pytest.raises(RuntimeError, match=r"data_batch_1 is not a CIFAR-10 batch: it numbers an object 4,294,967,295"):
        parse_cifar_python(far, "data_batch_1")


@pytest.mark.parametrize("kind", ["several disks", "a later zip"])
def test_an_archive_that_zipfile_does_not_know(tmp_path, kind):
    """The first is raised where zipfile is only asked whether it is an archive."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train/a/0.png", b"x")
    content = (tmp_path / "a.zip").read_bytes()
    if kind == "several disks":
        end = content.index(b"PK\x05\x06")
        content = content[:end] + b"PK\x06\x07" + struct.pack("<IQI", 1, 0, 2) + content[end:]
    else:
        place = content.index(b"PK\x01\x02") + 6
        content = content[:place] + b"\x8a\x00" + content[place + 2 :]
    for name, read in (("a.zip", Tree), ("a.pt", exchange.read)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RuntimeError, match=name):
            read(tmp_path / name)
