"""Old files, and files that are not what they seem: nothing in them is run."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.exchange.samples import classes, images, made, read_mnist, refused


def rename_numpy(path, module):
    """The modules that numpy's versions up to 1 and from 2 on name in pickles, in one file."""

    def renamed(content):
        return content.replace(b"cnumpy._core.", f"c{module}.".encode()).replace(
            b"cnumpy.core.", f"c{module}.".encode()
        )

    if not zipfile.is_zipfile(path):
        path.write_bytes(renamed(path.read_bytes()))
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, renamed(content) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("zipped", [False, True])
def test_pickles_of_old_and_new_versions(result, module, zipped):
    accuracies = {"ConvNet": [np.float64(0.5), np.float64(0.25)], "MLP": np.array([0.5, 0.75])}
    path = result(accuracies=accuracies, _use_new_zipfile_serialization=zipped, pickle_protocol=2)
    rename_numpy(path, module)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    read = read_mnist(path)
    assert torch.equal(read.images, images())
    assert read.metadata["source"]["accuracies"] == {"ConvNet": [50.0, 25.0], "MLP": [50.0, 75.0]}


class Code:
    """Runs when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("call", "name"),
    [((os.system, "touch ran"), "os.system"), ((eval, "open('ran', 'w')"), "eval"), ((exec, "1"), "exec")],
)
def test_code_is_refused(result, trajectory_matching, tmp_path, monkeypatch, zipped, call, name):
    monkeypatch.chdir(tmp_path)
    bad = Code(*call)
    for path in (
        result(accuracies={"ConvNet": [bad]}, _use_new_zipfile_serialization=zipped),
        trajectory_matching(images_best=images(), labels_best=classes(), lr_best=bad),
    ):
        with refused(RuntimeError, f"would run code ({name}): refused"):
            read_mnist(path)
    assert not (tmp_path / "ran").exists()


def test_code_in_an_archive_of_numpy_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.array([Code(os.system, "touch ran")], dtype=object), labels=np.zeros(1))
    with refused(RuntimeError, "would run code", "refused"):
        read_mnist(tmp_path / "a.npz")


@given(st.binary(max_size=60), st.booleans(), st.integers(0, 3000))
def test_damaged_files(tmp_path_factory, content, whole, cut):
    """Whatever bytes, and whatever part of a file: one line."""
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    if whole:
        buffer = io.BytesIO()
        torch.save(
            {"data": [[torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])]]}, buffer, _use_new_zipfile_serialization=cut % 2
        )
        content = buffer.getvalue()[: min(cut, len(buffer.getvalue()) - 1)]
    path.write_bytes(content)
    with refused((RuntimeError, ValueError), "damaged.pt"):
        read_mnist(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2, 3], ["any known format", "a list of 3"]),
        ({"net": {}}, ["any known format", "a dict with net"]),
        ({}, ["an empty dict"]),
        (torch.zeros(3), ["one tensor [3]"]),
        (5, ["an object of type int"]),
        ({"data": []}, ["no list of experiments"]),
        ({"data": [[images()]]}, ["experiment 0 is no pair"]),
        ({"data": [[images(), "labels"]]}, ["labels must be a tensor, not str"]),
        ({"data": [[images(), classes()[:5]]]}, ["labels must be numbers [20]"]),
        ({"data": [[images()[0], classes()]]}, ["images must have the shape [M, C, H, W]", "[1, 28, 28]"]),
        ({"data": [[images(0), classes(0)]]}, ["not [0, 1, 28, 28]"]),
        ({"data": [[images().to(torch.uint8), classes()]]}, ["images are uint8, not normalised values"]),
        ({"data": [[images().to(torch.complex64), classes()]]}, ["images are complex64"]),
        ({"data": [[images().to_sparse(), classes()]]}, ["plain tensor"]),
        ({"data": [[images(), classes() + 0.5]]}, ["label 0 is 0.5"]),
        ({"data": [[images(), classes() + 1]]}, ["labels 1..10 are outside 0..9"]),
        ({"data": [[images(shape=(3, 28, 28)), classes()]]}, ["images have 3 channels, mean and std are of 1"]),
        ({"data": [[images().index_fill(0, torch.tensor(4), torch.nan), classes()]]}, ["image 4", "not finite"]),
    ],
)
def test_content_that_is_no_set(tmp_path, value, words):
    torch.save(value, tmp_path / "a.pt")
    with refused(ValueError, *words):
        read_mnist(tmp_path / "a.pt")


def test_paths_that_hold_no_set(tmp_path):
    (tmp_path / "empty").mkdir()
    with refused(ValueError, "an empty folder"):
        read_mnist(tmp_path / "empty")
    with refused(FileNotFoundError, "no file or folder"):
        read_mnist(tmp_path / "nowhere.pt")
    made().save(tmp_path / "own.safetensors")
    with refused(ValueError, "need no import"):
        read_mnist(tmp_path / "own.safetensors")
    (tmp_path / "text.pt").write_text("hello")
    with refused(RuntimeError, "damaged"):
        read_mnist(tmp_path / "text.pt")


def test_formats_by_force(result):
    path = result()
    with refused(ValueError, "is not idc, data.pt", ": it holds a dict with data, accs_all_exps"):
        read_mnist(path, format="idc")
    with refused(ValueError, "unknown format 'vico'; one of: dcbench, mtt"):
        read_mnist(path, format="vico")
    with refused(ValueError, "dc has no decoder"):
        read_mnist(path, decoder="multi")
