"""Other projects' synthetic sets: read as they were written, written as they are read, and nothing in them is run."""

import io
import json
import os
import pickle
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import fastdd
from fastdd import exchange
from fastdd.data import SyntheticSet, Zca, load
from fastdd.exchange import published
from fastdd.exchange.idc import decode

MNIST = {"mean": [0.1307], "std": [0.3081]}


def images(count=20, shape=(1, 28, 28), seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def classes(count=20, num_classes=10):
    return torch.arange(num_classes).repeat_interleave(count // num_classes)


def made(channels=3, size=8, labels=(0, 0, 1, 1), **more):
    metadata = {
        "class_names": ["cat", "dog"],
        "mean": [0.4914, 0.4822, 0.4465][:channels],
        "std": [0.2023, 0.1994, 0.2010][:channels],
        "method": "dm",
        "debias": "fairdd",
        "dataset": "cifar10",
        "seed": 3,
        "run": {"arch": "ConvNetD2", "width": 8, "depth": None, "dsa_strategy": "flip", "iterations": 5},
    }
    metadata |= more.pop("metadata", {})
    x = images(len(labels), (channels, size, size))
    return SyntheticSet(x, torch.tensor(labels), metadata, **more)


@pytest.fixture(scope="module")
def c_digits():
    return load("c-digits")


@pytest.fixture
def result(tmp_path):
    """Writes a result of DC's: ``result(sets=..., accuracies=..., name=...)``; returns its path."""

    def write(sets=None, accuracies=None, name="res_DM_MNIST_ConvNet_2ipc.pt", **more):
        value = {"data": sets or [[images(), classes()]], "accs_all_exps": accuracies or {}}
        torch.save(value, tmp_path / name, **more)
        return tmp_path / name

    return write


@pytest.fixture
def trajectory_matching(tmp_path):
    """Writes files of MTT's into a folder: ``trajectory_matching(images_best=..., ...)``; returns the folder."""

    def write(**tensors):
        (tmp_path / "run").mkdir()
        for name, value in tensors.items():
            torch.save(value, tmp_path / "run" / f"{name}.pt")
        return tmp_path / "run"

    return write


def read_mnist(path, **options):
    return fastdd.import_synthetic(path, dataset="mnist", **options)


@contextmanager
def refused(kind, *words):
    """An error of a kind, in one line that has the words."""
    with pytest.raises(kind) as error:
        yield
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


# Results of DC and FairDD.


def test_a_result_of_dc(result):
    path = result(accuracies={"ConvNet": [np.float64(0.5), np.float64(0.25)]})
    read = read_mnist(path)
    assert torch.equal(read.images, images())
    assert torch.equal(read.labels, classes())
    about = read.metadata
    assert (about["mean"], about["std"], about["class_names"]) == ([0.1307], [0.3081], list("0123456789"))
    assert (about["dataset"], about["method"], about["debias"], about["ipc"]) == ("mnist", "dm", "none", 2)
    assert about["run"] == {
        "arch": "ConvNet",
        "width": None,
        "depth": None,
        "dsa_strategy": "color_crop_cutout_flip_scale_rotate",
    }
    assert about["source"]["accuracies"] == {"ConvNet": [50.0, 25.0]}
    file = about["source"]["files"][0]
    assert (file["file"], file["bytes"]) == (path.name, path.stat().st_size)
    assert len(file["sha256"]) == 64
    assert about["source"]["notes"] == []


def test_the_last_experiment_or_the_one_asked_for_with_its_own_accuracies(result):
    sets = [[images(seed=seed), classes()] for seed in range(3)]
    path = result(sets, {"ConvNet": [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]})  # percent, two networks each: FairDD
    last, first = read_mnist(path), read_mnist(path, experiment=0)
    assert torch.equal(last.images, sets[2][0])
    assert torch.equal(first.images, sets[0][0])
    assert last.metadata["source"]["accuracies"] == {"ConvNet": [50.0, 60.0]}
    assert first.metadata["source"]["accuracies"] == {"ConvNet": [10.0, 20.0]}
    assert "experiment 2 of 0 to 2" in last.metadata["source"]["notes"][0]
    with refused(ValueError, "experiments 0 to 2, not 3"):
        read_mnist(path, experiment=3)


@pytest.mark.parametrize("values", [[], [np.nan], ["?"], {"a": 1}, None])
def test_accuracies_that_are_none_do_not_matter(result, values):
    assert "accuracies" not in read_mnist(result(accuracies={"ConvNet": values})).metadata["source"]


@pytest.mark.parametrize("to", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("label_type", [torch.int32, torch.uint8, torch.float32, torch.int64])
def test_other_types(result, to, label_type):
    read = read_mnist(result([[images().to(to).requires_grad_(), classes().to(label_type).view(-1, 1)]]))
    assert (read.images.dtype, read.labels.dtype, read.images.requires_grad) == (torch.float32, torch.int64, False)
    assert torch.equal(read.images, images().to(to).float())
    assert torch.equal(read.labels, classes())
    assert any("float64" in note for note in read.metadata["source"]["notes"]) == (to == torch.float64)


def test_arrays_of_numpy(result):
    read = read_mnist(result([[images().numpy(), classes().numpy().astype(np.int32)]]))
    assert torch.equal(read.images, images())
    assert torch.equal(read.labels, classes())


def test_tensors_that_were_on_a_gpu(result, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
        path = result()
    assert b"cuda:3" in path.read_bytes()
    assert torch.equal(read_mnist(path).images, images())


def test_any_order_and_number_of_labels(result):
    labels = torch.tensor([3, 1, 1, 0, 9])
    read = read_mnist(result([[images(5), labels]]))
    assert torch.equal(read.labels, labels)
    assert "ipc" not in read.metadata


def test_networks_by_the_name_of_the_file(result):
    assert read_mnist(result(name="res_DC_MNIST_ConvNetD4_1ipc.pt")).metadata["run"]["arch"] == "ConvNetD4"
    assert read_mnist(result(), arch="convnetd2").metadata["run"]["arch"] == "ConvNetD2"
    other = read_mnist(result(name="res_DC_MNIST_Own_Net_1ipc.pt")).metadata
    assert (other["method"], other["run"]["arch"], other["run"]["dsa_strategy"]) == ("dc", "ConvNet", "none")
    assert "Net, its network, is not known here" in other["source"]["notes"][0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("res_DM_CIFAR10_ConvNet_10ipc.pt", ("DM", "CIFAR10", "ConvNet", "10")),
        ("res_DSA_BFFHQ_ResNet18BN_AP_50ipc.pt", ("DSA", "BFFHQ", "ResNet18BN_AP", "50")),
        ("res_DM_Colored_MNIST_foreground_MLP_1ipc.pt", ("DM", "Colored_MNIST_foreground", "MLP", "1")),
        ("res_DC_CIFAR10_S_90_AlexNet_1ipc.pt", ("DC", "CIFAR10_S_90", "AlexNet", "1")),
        ("res_DC_BFFHQ_ConvNet_1ipc_fair.pt", ("DC", "BFFHQ", "ConvNet", "1")),
        ("res_DC_CIFAR10_1ipc.pt", ()),
        ("res_DM_BFFHQ_ConvNet_1000ori.pt", ()),
        ("images_best.pt", ()),
    ],
)
def test_names_of_results(name, expected):
    assert tuple(published.of_result(Path(name)).values()) == expected


def test_the_folder_of_a_run(result, tmp_path):
    """FairDD's has networks beside the result."""
    result(name="res_DM_MNIST_ConvNet_2ipc.pt")
    torch.save({"net": {}}, tmp_path / "res_DM_MNIST_ConvNet_20000ori.pt")
    assert torch.equal(read_mnist(tmp_path).images, images())
    result(name="res_DM_MNIST_ConvNet_10ipc.pt")
    with refused(ValueError, "holds 2 results; give one, such as", "res_DM_MNIST_ConvNet_10ipc.pt"):
        read_mnist(tmp_path)


# Old files, and files that are not what they seem.


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
    with refused(ValueError, "dc has no factor"):
        read_mnist(path, factor=2)


# What images are normalised with.


def test_normalisation_is_asked_for_with_what_the_name_suggests(result, tmp_path):
    with refused(ValueError, "--dataset NAME, or --mean and --std", "looks like --dataset mnist"):
        fastdd.import_synthetic(result())
    with refused(ValueError, "looks like --dataset c-mnist-bg"):
        fastdd.import_synthetic(result(name="res_DC_Colored_MNIST_background_ConvNet_1ipc.pt"))
    with refused(ValueError, "looks like --dataset svhn"):
        fastdd.import_synthetic(result(name="res_DC_SVHN_ConvNet_1ipc.pt"))
    with refused(ValueError, "or --mean and --std"):
        fastdd.import_synthetic(result(name="mine.pt"))
    (tmp_path / "fashion" / "tag").mkdir(parents=True)
    torch.save([torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1])], tmp_path / "fashion" / "tag" / "data.pt")
    with refused(ValueError, "hold pixels", "looks like --dataset fashion-mnist"):
        fastdd.import_synthetic(tmp_path / "fashion" / "tag")


def test_normalisation_by_hand(result):
    read = fastdd.import_synthetic(result(), mean=[0.5], std=[0.25])
    assert (read.metadata["mean"], read.metadata["std"]) == ([0.5], [0.25])
    assert torch.equal(read.images, images())
    assert read.metadata["class_names"] == list("0123456789")
    assert "dataset" not in read.metadata
    both = read_mnist(result(), mean=[0.5], std=[0.25])
    assert (both.metadata["mean"], both.metadata["dataset"]) == ([0.5], "mnist")
    with refused(ValueError, "go together"):
        fastdd.import_synthetic(result(), mean=[0.5])


def test_a_data_set_that_published_code_does_not_have_says_its_own(result, c_digits):
    path = result([[images(20, (3, 16, 16)), classes()]])
    for dataset in ("c-digits", c_digits):
        read = fastdd.import_synthetic(
            path, dataset=dataset, data_options={"bias_ratio": 0.5} if dataset == "c-digits" else None
        )
        assert (read.metadata["mean"], read.metadata["dataset"]) == ([0.5] * 3, "c-digits")
    read = fastdd.import_synthetic(path, dataset="c-digits", data_options={"bias_ratio": 0.5})
    assert read.metadata["provenance"]["parameters"]["bias_ratio"] == 0.5
    with refused(ValueError, "c-digits has no colour"):
        fastdd.import_synthetic(path, dataset="c-digits", data_options={"colour": 1})
    with refused(ValueError, "unknown data set 'mnits': did you mean mnist"):
        fastdd.import_synthetic(path, dataset="mnits")
    with refused(FileNotFoundError, "root"):
        fastdd.import_synthetic(path, dataset="cmnist-lff")


def test_options_of_a_data_set_are_kept_for_the_evaluation(result):
    path = result([[images(20, (3, 32, 32)), classes()]])
    read = fastdd.import_synthetic(path, dataset="c-mnist-fg", debias="fairdd", data_options={"bias_ratio": 0.95})
    assert read.metadata["provenance"] == {"parameters": {"bias_ratio": 0.95}}
    assert read.metadata["debias"] == "fairdd"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "c-mnist-fg", "c-mnist-bg", "c-fmnist-fg", "c-fmnist-bg"])
def test_published_normalisation_is_that_of_the_data_sets(mnist_root, name):
    data, known = load(name, mnist_root), published.DATASETS[name]
    assert (data.mean, data.std, data.class_names) == (known.mean, known.std, known.class_names)


@pytest.mark.parametrize("name", ["cifar10", "cifar10-s"])
def test_published_normalisation_is_that_of_cifar10(cifar_root, name):
    data, known = load(name, cifar_root), published.DATASETS[name]
    assert (data.mean, data.std, data.class_names) == (known.mean, known.std, known.class_names)


def test_every_published_name_is_a_data_set():
    assert set(published.NAMES.values()) <= set(published.DATASETS) <= set(fastdd.data.available())


# Trajectory matching.


def test_a_folder_of_trajectory_matching(trajectory_matching):
    folder = trajectory_matching(
        images_best=images(), labels_best=classes(), lr_best=torch.tensor(0.02, requires_grad=True),
        images_500=images(seed=1), labels_500=classes().flip(0), images_1000=images(seed=2), labels_1000=classes(),
    )  # fmt: skip
    best = read_mnist(folder)
    assert torch.equal(best.images, images())
    assert best.learning_rate == pytest.approx(0.02)
    assert (best.metadata["method"], best.soft_labels) == ("mtt", None)
    for path, options in ((folder, {"iteration": "500"}), (folder / "images_500.pt", {})):
        read = read_mnist(path, **options)
        assert torch.equal(read.images, images(seed=1))
        assert torch.equal(read.labels, classes().flip(0))
        assert (read.learning_rate, read.metadata["source"]["iteration"]) == (None, "500")
    assert read_mnist(folder, learning_rate=0.5).learning_rate == 0.5
    with refused(ValueError, "no images of iteration 7; there are best, 500, 1000"):
        read_mnist(folder, iteration="7")
    (folder / "images_best.pt").unlink()
    with refused(ValueError, "give --iteration, one of 500, 1000"):
        read_mnist(folder)
    (folder / "images_1000.pt").unlink()
    assert torch.equal(read_mnist(folder).images, images(seed=1))
    (folder / "labels_500.pt").unlink()
    with refused(FileNotFoundError, "labels_500.pt"):
        read_mnist(folder)


def test_soft_labels(trajectory_matching):
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(1))
    folder = trajectory_matching(images_best=images(), labels_best=logits.softmax(1))
    read = read_mnist(folder)
    assert torch.equal(read.soft_labels, logits.softmax(1))
    assert torch.equal(read.labels, logits.argmax(1))
    torch.save(logits, folder / "labels_best.pt")
    with refused(ValueError, "no probabilities (row 0 sums to", "give --labels logits"):
        read_mnist(folder)
    torch.testing.assert_close(read_mnist(folder, labels="logits").soft_labels, logits.softmax(1))
    torch.save(logits.softmax(1).half(), folder / "labels_best.pt")
    torch.testing.assert_close(read_mnist(folder).soft_labels, logits.softmax(1), atol=1e-3, rtol=1e-3)
    torch.save(torch.nn.functional.one_hot(classes(), 10).float(), folder / "labels_best.pt")
    hard = read_mnist(folder)
    assert (hard.soft_labels, hard.labels.tolist()) == (None, classes().tolist())
    torch.save(logits.softmax(1)[:, :3], folder / "labels_best.pt")
    with refused(ValueError, "no probabilities"):
        read_mnist(folder)
    with refused(ValueError, "unknown meaning of labels 'hard'"):
        read_mnist(folder, labels="hard")


@pytest.mark.parametrize("rate", ["fast", [0.1], torch.zeros(2), True])
def test_a_step_size_that_is_none(trajectory_matching, rate):
    folder = trajectory_matching(images_best=images(), labels_best=classes(), lr_best=rate)
    with refused(ValueError, "lr_best.pt is not a step size"):
        read_mnist(folder)


def test_a_set_in_parts(trajectory_matching):
    parts = {f"images_best_{i}": images(4, seed=i) for i in range(5)}
    folder = trajectory_matching(**parts, **{f"labels_best_{i}": torch.full((4,), i) for i in range(5)})
    read = read_mnist(folder)
    assert torch.equal(read.images, torch.cat(list(parts.values())))
    assert read.labels.tolist() == classes(20, 5).tolist()


def test_whitened_images_get_their_zca_from_the_data_set(trajectory_matching, c_digits):
    zca = Zca.fit(c_digits.train.images)
    whitened = zca.whiten(c_digits.train.images[:20])
    folder = trajectory_matching(images_best=whitened, images_zca_best=zca.unwhiten(whitened), labels_best=classes())
    read = fastdd.import_synthetic(folder, dataset=c_digits, zca=True)
    assert torch.equal(read.images, whitened)
    assert read.zca.digest() == zca.digest()
    assert (read.metadata["mean"], read.metadata["std"]) == ([0.0] * 3, [1.0] * 3)
    # What the whitening was taken back of are pixels, which networks saw whitened.
    plain = fastdd.import_synthetic(folder / "images_zca_best.pt", dataset=c_digits)
    torch.testing.assert_close(
        plain.images, torch.from_numpy(c_digits.train.images[:20]) / 127.5 - 1, atol=1e-4, rtol=0
    )
    assert "whitening taken back" in plain.metadata["source"]["notes"][0]
    with refused(ValueError, "holds pixels, not whitened images"):
        fastdd.import_synthetic(folder / "images_zca_best.pt", dataset=c_digits, zca=True)
    with refused(ValueError, "ZCA is fitted on a data set"):
        fastdd.import_synthetic(folder, zca=True)
    (folder / "images_best.pt").rename(folder / "other.pt")
    with refused(ValueError, "whitening taken back only (images_zca_*.pt): give one of them"):
        fastdd.import_synthetic(folder, dataset=c_digits)
    with refused(ValueError, "other.pt holds images only; call it images_best.pt"):
        fastdd.import_synthetic(folder / "other.pt", dataset=c_digits)
    (folder / "other.pt").rename(folder / "images_best.pt")
    # Only runs with ZCA write images_zca_*.pt.
    for path in (folder, folder / "images_best.pt"):
        with refused(ValueError, "are whitened: give --zca"):
            fastdd.import_synthetic(path, dataset=c_digits)


# IDC.


@pytest.fixture
def idc(tmp_path):
    """Writes data.pt of IDC's into a folder of a name; returns the folder."""

    def write(pixels, labels, name="run"):
        (tmp_path / name).mkdir()
        torch.save([pixels, labels], tmp_path / name / "data.pt")
        return tmp_path / name

    return write


def test_pixels_are_normalised(idc):
    pixels = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    folder = idc(pixels, classes())
    for path in (folder, folder / "data.pt"):
        read = read_mnist(path)
        torch.testing.assert_close(read.images, (pixels - 0.1307) / 0.3081)
        assert (read.metadata["method"], read.metadata["source"]["notes"]) == ("idc", [])
    whole = idc((pixels * 255).to(torch.uint8), classes(), "whole")
    torch.testing.assert_close(read_mnist(whole).images, ((pixels * 255).floor() / 255 - 0.1307) / 0.3081)
    torch.save([pixels * 3 - 1, classes()], folder / "data.pt")
    assert "pixels from -1 to 2" in read_mnist(folder).metadata["source"]["notes"][0]


def test_multi_formation_has_to_be_told(idc):
    folder = idc(torch.rand(20, 1, 28, 28), classes(), "conv3in_factor2_lr0.005_mix_ipc2")
    with refused(ValueError, "says factor 2; give --factor 2"):
        read_mnist(folder)
    assert len(read_mnist(folder, factor=1).images) == 20
    read = read_mnist(folder, factor=2)
    assert (len(read.images), read.metadata["ipc"]) == (80, 2)
    assert read.labels.tolist() == [label for label in range(10) for _ in range(8)]


def enlarged(part, size):
    """Bilinear, each pixel's centre where it belongs, in float64, one pixel after the other."""
    old = part.shape[-1]
    at = [min(max((i + 0.5) * old / size - 0.5, 0), old - 1) for i in range(size)]
    out = np.empty((*part.shape[:-2], size, size))
    for i, y in enumerate(at):
        for j, x in enumerate(at):
            top, left = int(y), int(x)
            bottom, right = min(top + 1, old - 1), min(left + 1, old - 1)
            b, r = y - top, x - left
            upper = part[..., top, left] * (1 - r) + part[..., top, right] * r
            lower = part[..., bottom, left] * (1 - r) + part[..., bottom, right] * r
            out[..., i, j] = upper * (1 - b) + lower * b
    return out


@pytest.mark.parametrize(("size", "factor"), [(8, 2), (9, 2), (7, 3), (6, 1)])
def test_decoding(size, factor):
    stored = torch.rand(4, 2, size, size, generator=torch.Generator().manual_seed(size))
    decoded, rows = decode(stored, torch.tensor([1, 0, 1, 0]), factor)
    side = -(-size // factor)
    padded = np.full((4, 2, side * factor, side * factor), 0.5)
    padded[:, :, :size, :size] = stored
    expected, order = [], []
    for of_class in ([1, 3], [0, 2]):
        for i in range(factor):
            for j in range(factor):
                for row in of_class:
                    part = padded[row, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
                    expected.append(enlarged(part, size))
                    order.append(row)
    assert rows.tolist() == order
    np.testing.assert_allclose(decoded, np.stack(expected), atol=1e-6)


def test_decoders_of_several_factors():
    stored = torch.rand(30, 1, 6, 6)
    labels = torch.zeros(30, dtype=torch.int64)
    several, rows = decode(stored, labels, 3, "multi")
    assert len(several) == 30 * (1 + 4 + 9)
    assert torch.equal(several[:30], stored)
    # Of 128 places each image keeps one: 98 take 10 images in 9; with 20 to come, 18 of the other 38 take 4 in 4.
    bound, rows = decode(stored, labels, 3, "bound")
    assert torch.bincount(rows).tolist() == [9] * 10 + [4] * 4 + [1] * 16
    assert torch.equal(bound[-16:], stored[14:])


@pytest.mark.parametrize("options", [{"factor": 0}, {"factor": 29}, {"factor": 2, "decoder": "double"}])
def test_decoding_that_can_not_be(idc, options):
    with refused(ValueError, "decode"):
        read_mnist(idc(torch.rand(20, 1, 28, 28), classes()), **options)


def test_images_that_are_not_square_are_not_decoded(idc):
    with refused(ValueError, "square images"):
        read_mnist(idc(torch.rand(20, 1, 28, 14), classes()), factor=2)


# Round trips.


@st.composite
def sets(draw, most=6, whole=False):
    """Synthetic sets of any shape, order of labels, soft labels and step size; of pixels in 8 bits if ``whole``."""
    channels, height = draw(st.sampled_from([1, 3])), draw(st.integers(1, 5))
    labels = draw(st.lists(st.integers(0, 3), min_size=1, max_size=most))
    seed = draw(st.integers(0, 2**31))
    random = torch.Generator().manual_seed(seed)
    mean, std = (
        [draw(st.floats(0.1, 0.9)) for _ in range(channels)],
        [draw(st.floats(0.1, 0.9)) for _ in range(channels)],
    )
    values = torch.randn(len(labels), channels, height, height, generator=random)
    if whole:
        pixels = torch.randint(0, 256, values.shape, generator=random) / 255
        values = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    soft = torch.randn(len(labels), 4, generator=random).softmax(1)
    metadata = {"class_names": ["a", "b/c", "10", "9"], "mean": mean, "std": std, "dataset": "cifar10", "method": "dm"}
    return SyntheticSet(
        values,
        torch.tensor(labels),
        metadata,
        learning_rate=draw(st.none() | st.floats(-1, 1)),
        soft_labels=soft if draw(st.booleans()) else None,
    )


def same(one, two, *, learning_rate=True, soft_labels=True):
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)
    for field in ("mean", "std", "class_names", "method"):
        assert one.metadata[field] == two.metadata[field]
    if learning_rate:
        assert one.learning_rate == two.learning_rate
    if soft_labels:
        assert (one.soft_labels is None) == (two.soft_labels is None)
        assert one.soft_labels is None or torch.equal(one.soft_labels, two.soft_labels)


def through(original, folder, to, name="out", **options):
    written = fastdd.export_synthetic(original, folder / name, to=to, force=True, **options)
    return fastdd.import_synthetic(written.files[0])


@given(sets())
def test_npz_holds_everything(tmp_path_factory, original):
    same(through(original, tmp_path_factory.getbasetemp(), "npz", "all.npz"), original)


@given(sets())
def test_dc_holds_images_and_classes(tmp_path_factory, original):
    again = through(original, tmp_path_factory.getbasetemp(), "dc", "dc.pt", hard_labels=True)
    same(again, original, learning_rate=False, soft_labels=False)


@given(sets())
def test_mtt_holds_all_but_the_classes_of_soft_labels(tmp_path_factory, original):
    if original.soft_labels is not None:
        original = replace(original, labels=original.soft_labels.argmax(1))
    same(through(original, tmp_path_factory.getbasetemp(), "mtt"), original)


@given(sets(whole=True))
def test_idc_and_folders_hold_pixels(tmp_path_factory, original):
    root = tmp_path_factory.mktemp("pixels")
    for to in ("idc", "folder"):
        written = fastdd.export_synthetic(original, root / to, to=to, hard_labels=True)
        again = fastdd.import_synthetic(root / to)
        order = torch.arange(len(original.labels))
        if to == "folder":  # class by class, in the order of the folders' names
            names = original.metadata["class_names"]
            order = torch.tensor(sorted(order.tolist(), key=lambda i: (names[original.labels[i]].replace("/", "_"), i)))
        assert torch.equal(again.labels, original.labels[order])
        torch.testing.assert_close(again.images, original.images[order], atol=1e-5, rtol=0)
        assert torch.equal(again.to_uint8(), original.to_uint8()[order])
        assert again.metadata["class_names"] == original.metadata["class_names"]
        assert any("step size" in note for note in written.notes) == (original.learning_rate is not None)


def test_whitened_sets_in_mtt_and_npz(tmp_path, c_digits):
    zca = Zca.fit(c_digits.train.images)
    whitened = zca.whiten(c_digits.train.images[:20])
    about = {"class_names": list("0123456789"), "mean": [0.0] * 3, "std": [1.0] * 3, "dataset": "c-digits"}
    original = SyntheticSet(whitened, classes(), about, zca=zca)
    again = fastdd.import_synthetic(fastdd.export_synthetic(original, tmp_path / "a.npz", to="npz").files[0])
    assert torch.equal(again.images, whitened)
    assert again.zca.digest() == zca.digest()
    written = fastdd.export_synthetic(original, tmp_path / "mtt", to="mtt")
    assert any("whitened" in note for note in written.notes)
    pixels = torch.load(tmp_path / "mtt" / "images_zca_best.pt", weights_only=True)
    torch.testing.assert_close(pixels, torch.from_numpy(c_digits.train.images[:20]) / 255, atol=1e-4, rtol=0)
    again = fastdd.import_synthetic(tmp_path / "mtt", dataset="c-digits", zca=True)
    assert torch.equal(again.images, whitened)
    assert again.zca.digest() == zca.digest()
    assert again.metadata["source"]["notes"] == []
    # Whitened images must not pass for normalised ones.
    with refused(ValueError, "are whitened: give --zca"):
        fastdd.import_synthetic(tmp_path / "mtt", dataset="c-digits")
    fastdd.export_synthetic(original, tmp_path / "png", to="folder")
    assert torch.equal(
        fastdd.import_synthetic(tmp_path / "png", mean=[0.5] * 3, std=[0.5] * 3).to_uint8(), original.to_uint8()
    )
    for to in ("dc", "idc", "dcbench"):
        with refused(ValueError, "no ZCA-whitened images"):
            fastdd.export_synthetic(original, tmp_path / "no", to=to, method="dm" if to == "dcbench" else None)


def test_what_a_file_says_counts_more_than_what_is_usual(tmp_path):
    """Ours of BFFHQ are normalised otherwise than FairDD's."""
    original = made(metadata={"dataset": "bffhq", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    for to, name in (("dc", "a.pt"), ("npz", "a.npz"), ("mtt", "m")):
        file = fastdd.export_synthetic(original, tmp_path / name, to=to).files[0]
        assert fastdd.import_synthetic(file, dataset="bffhq").metadata["mean"] == [0.1, 0.2, 0.3]
        assert fastdd.import_synthetic(file, mean=[0.5] * 3, std=[0.5] * 3).metadata["mean"] == [0.5] * 3
    torch.save({"data": [[original.images, original.labels]]}, tmp_path / "old.pt")
    assert fastdd.import_synthetic(tmp_path / "old.pt", dataset="bffhq").metadata["mean"] == [0.4914, 0.4822, 0.4465]


def test_metadata_survives(tmp_path):
    original = made()
    for to, name in (("dc", "a.pt"), ("mtt", "m"), ("idc", "i"), ("folder", "f"), ("npz", "n.npz"), ("dcbench", "b")):
        again = through(original, tmp_path, to, name).metadata
        for field in ("method", "debias", "dataset", "seed", "run", "ipc" if "ipc" in original.metadata else "seed"):
            assert again[field] == original.metadata[field], (to, field)
        assert again["source"]["files"]


def test_what_is_written_beside_is_not_taken_for_other_files(tmp_path):
    """A folder that another program wrote to again says no longer what fastdd wrote there."""
    for to, file in (("mtt", "images_best.pt"), ("idc", "data.pt")):
        fastdd.export_synthetic(made(), tmp_path / to, to=to)
        torch.save(
            images(4, (3, 8, 8)) if to == "mtt" else [torch.rand(4, 3, 8, 8), torch.tensor([0, 0, 1, 1])],
            tmp_path / to / file,
        )
        with refused(ValueError, "--mean and --std"):
            fastdd.import_synthetic(tmp_path / to)
    fastdd.export_synthetic(made(), tmp_path / "idc", to="idc", force=True)
    content = json.loads((tmp_path / "idc" / "fastdd.json").read_text())
    for metadata in ({}, {"mean": "0.5", "std": [0.5], "class_names": ["a"]}, [1]):
        (tmp_path / "idc" / "fastdd.json").write_text(json.dumps({**content, "metadata": metadata}))
        with refused(ValueError, "--mean and --std"):
            fastdd.import_synthetic(tmp_path / "idc")


# What is written for others.


def test_results_load_everywhere(tmp_path):
    original = replace(made(learning_rate=0.02), soft_labels=None)
    original.images.requires_grad_()
    fastdd.export_synthetic(original, tmp_path, to="dc")
    value = torch.load(tmp_path / "res_DM_CIFAR10_ConvNetD2_2ipc.pt", weights_only=True)
    ((pixels, labels),) = value["data"]
    assert (pixels.dtype, labels.dtype, pixels.requires_grad) == (torch.float32, torch.int64, False)
    assert torch.equal(pixels, original.images)
    assert value["accs_all_exps"] == {}


def test_published_accuracies_are_written_as_fractions_of_python(result, tmp_path):
    read = read_mnist(result(accuracies={"ConvNet": [50.0, 25.0]}))
    fastdd.export_synthetic(read, tmp_path / "again.pt", to="dc")
    stored = torch.load(tmp_path / "again.pt", weights_only=True)["accs_all_exps"]
    assert stored == {"ConvNet": [0.5, 0.25]}
    assert type(stored["ConvNet"][0]) is float


def test_only_what_is_exported_is_stored(tmp_path):
    """Not the tensor that it is a part of."""
    large = images(1000, (3, 8, 8))
    original = replace(made(), images=large[:4])
    file = fastdd.export_synthetic(original, tmp_path / "a.pt", to="dc").files[0]
    assert file.stat().st_size < large.nbytes / 10


def test_soft_labels_where_there_is_no_place_for_them(tmp_path):
    soft = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.0, 1.0], [0.25, 0.75]])
    original = made(soft_labels=soft, learning_rate=0.5)
    for to in ("dc", "idc", "dcbench", "folder"):
        with refused(ValueError, "no soft labels: export to mtt or npz, or classes only"):
            fastdd.export_synthetic(original, tmp_path / to, to=to)
        written = fastdd.export_synthetic(original, tmp_path / to, to=to, hard_labels=True)
        assert any("step size 0.5 is not in it" in note for note in written.notes)
    fastdd.export_synthetic(original, tmp_path / "mtt", to="mtt")
    assert torch.equal(torch.load(tmp_path / "mtt" / "labels_best.pt", weights_only=True), soft)
    assert torch.load(tmp_path / "mtt" / "lr_best.pt", weights_only=True).item() == 0.5


def test_nothing_is_replaced_unasked(tmp_path):
    for to, name in (("dc", "a.pt"), ("mtt", "m"), ("idc", "i"), ("npz", "n.npz"), ("dcbench", "b")):
        fastdd.export_synthetic(made(learning_rate=0.5), tmp_path / name, to=to)
        with refused(ValueError, "exists; give another place, or --force"):
            fastdd.export_synthetic(made(), tmp_path / name, to=to)
        fastdd.export_synthetic(made(), tmp_path / name, to=to, force=True)
    # What the set does not have, the folder must not keep of another.
    assert not (tmp_path / "m" / "lr_best.pt").exists()
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "mine.txt").write_text("keep")
    for force in (False, True):
        with refused(ValueError, "not an empty folder"):
            fastdd.export_synthetic(made(), tmp_path / "f", to="folder", force=force)
    assert (tmp_path / "f" / "mine.txt").read_text() == "keep"
    with refused(ValueError, "must end in .npz"):
        fastdd.export_synthetic(made(), tmp_path / "n", to="npz")
    with refused(ValueError, "unknown format 'png'"):
        fastdd.export_synthetic(made(), tmp_path / "n", to="png")


def test_a_full_disk_leaves_no_half_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with refused(OSError, "No space left"):
        fastdd.export_synthetic(made(), tmp_path / "f", to="folder")
    assert list(tmp_path.iterdir()) == []


# DC-Bench.


def test_dc_bench(tmp_path):
    root = tmp_path / "distilled_results"
    fastdd.export_synthetic(made(), root, to="dcbench")
    assert (root / "DM/CIFAR10/IPC2/res_DM_CIFAR10_ConvNet_2ipc.pt").is_file()
    fastdd.export_synthetic(made(), tmp_path, to="dcbench", method="tm")  # a checkout, as it has that folder
    pair = [torch.load(root / f"TM/CIFAR10/IPC2/{name}_best.pt", weights_only=True) for name in ("images", "labels")]
    assert torch.equal(pair[0], made().images)
    assert torch.equal(pair[1], made().labels)
    with refused(ValueError, "holds 2 such sets (DM/CIFAR10/IPC2, TM/CIFAR10/IPC2)", "--method"):
        fastdd.import_synthetic(root)
    for path in (root, tmp_path):
        for method in ("dm", "tm"):
            same(
                fastdd.import_synthetic(path, method=method, ipc=2),
                replace(made(), metadata={**made().metadata, "method": method}),
            )
    with refused(ValueError, "has no such set"):
        fastdd.import_synthetic(root, ipc=50)
    with refused(ValueError, "no such set"):
        fastdd.import_synthetic(root, dataset="mnist")
    with refused(ValueError, "DC-Bench has no method kip"):
        fastdd.export_synthetic(made(), root, to="dcbench", method="kip")
    with refused(ValueError, "classes have 1 to 3 images"):
        fastdd.export_synthetic(made(labels=(0, 1, 1, 1)), root, to="dcbench")


def test_tiny_imagenet_for_dc_bench_is_in_five_parts(tmp_path):
    labels = [label for label in range(2) for _ in range(50)]
    original = made(size=2, labels=labels, metadata={"dataset": "tiny-imagenet", "method": "mtt"})
    written = fastdd.export_synthetic(original, tmp_path, to="dcbench")
    assert [file.name for file in written.files[:5]] == [f"images_best_{part}.pt" for part in range(5)]
    assert torch.equal(fastdd.import_synthetic(tmp_path).images, original.images)


# Folders of images.


@pytest.fixture
def pictures(tmp_path):
    """Writes images (uint8 [H, W] or [H, W, 3]) by class; returns the folder."""

    def write(by_class, suffix="png"):
        for name, arrays in by_class.items():
            (tmp_path / "pictures" / name).mkdir(parents=True)
            for number, array in enumerate(arrays):
                Image.fromarray(array).save(tmp_path / "pictures" / name / f"{number}.{suffix}")
        return tmp_path / "pictures"

    return write


def gray(value, size=4):
    return np.full((size, size), value, np.uint8)


def colour(value, size=4):
    return np.stack([gray(value + channel, size) for channel in range(3)], -1)


def test_classes_are_in_the_order_of_their_names(pictures):
    folder = pictures({"zebra": [colour(1)], "ant": [colour(2), colour(3)]})
    read = fastdd.import_synthetic(folder, mean=[0.5] * 3, std=[0.5] * 3)
    assert read.metadata["class_names"] == ["ant", "zebra"]
    assert read.labels.tolist() == [0, 0, 1]
    assert read.to_uint8()[:, :, 0, 0].tolist() == [[2, 3, 4], [3, 4, 5], [1, 2, 3]]


def test_classes_of_the_data_set_keep_its_numbers(pictures):
    read = fastdd.import_synthetic(pictures({"truck": [colour(1)], "bird": [colour(2)]}), dataset="cifar10")
    assert sorted(zip(read.labels.tolist(), read.to_uint8()[:, 0, 0, 0].tolist(), strict=True)) == [(2, 2), (9, 1)]
    assert len(read.metadata["class_names"]) == 10


def test_classes_of_other_names_are_numbered(pictures):
    read = read_mnist(pictures({f"class{i}": [gray(i)] for i in range(10)}))
    assert read.labels.tolist() == list(range(10))
    assert "not called as the data set's" in read.metadata["source"]["notes"][0]


def test_gray_images(pictures):
    read = read_mnist(pictures({"0": [np.stack([gray(7)] * 3, -1)], "1": [gray(9)]}))  # one is stored as colour
    assert read.images.shape == (2, 1, 4, 4)
    assert read.to_uint8()[:, 0, 0, 0].tolist() == [7, 9]
    with refused(ValueError, "images have 3 channels, mean and std are of 1"):
        read_mnist(pictures({"2": [colour(3)]}))


def test_folders_that_are_no_set(pictures, tmp_path):
    with refused(ValueError, "1/0.png is 5x5,", "0/0.png 4x4"):
        read_mnist(pictures({"0": [gray(1)], "1": [gray(2, 5)]}))
    (tmp_path / "pictures" / "0" / "0.png").write_bytes(b"no picture")
    with refused(RuntimeError, "can't be read as an image"):
        read_mnist(tmp_path / "pictures")


def test_names_of_classes_that_folders_can_not_have(tmp_path):
    names = ["T-shirt/top", "T-shirt?top", "..", "CON"]
    original = made(labels=(0, 1, 2, 3), metadata={"class_names": names})
    fastdd.export_synthetic(original, tmp_path / "f", to="folder")
    assert all(path.parent == tmp_path / "f" for path in (tmp_path / "f").iterdir())
    again = fastdd.import_synthetic(tmp_path / "f")
    assert again.metadata["class_names"] == names
    assert again.to_uint8().tolist() == original.to_uint8().tolist()


# numpy's archives.


def test_an_archive_of_another_program(tmp_path):
    np.savez(tmp_path / "a.npz", images=images().numpy(), labels=classes().numpy())
    with refused(ValueError, "npz files don't say"):
        fastdd.import_synthetic(tmp_path / "a.npz")
    assert torch.equal(read_mnist(tmp_path / "a.npz").images, images())
    np.savez_compressed(tmp_path / "a.npz", images=images().numpy(), labels=classes().numpy(), **MNIST)
    assert fastdd.import_synthetic(tmp_path / "a.npz").metadata["mean"] == [0.1307]


def test_classes_and_soft_labels_of_an_archive_go_by_name(tmp_path):
    soft = np.array([[0.9, 0.1], [0.25, 0.75]], np.float32)
    arrays = {"images": images(2, (3, 4, 4)).numpy(), "labels": np.array([0, 1]), "class_names": ["truck", "bird"]}
    np.savez(tmp_path / "a.npz", **arrays, soft_labels=soft)
    read = fastdd.import_synthetic(tmp_path / "a.npz", dataset="cifar10")
    assert read.labels.tolist() == [9, 2]
    assert read.soft_labels.shape == (2, 10)
    assert read.soft_labels[:, [9, 2]].tolist() == soft.tolist()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mean": [0.1, 0.2], "std": [0.3]}, ["mean needs 1 numbers, not 2"]),
        ({"metadata": "{"}, ["metadata is not JSON"]),
        ({"learning_rate": ["fast"]}, ["learning_rate needs 1 numbers"]),
        ({"zca_mean": np.zeros(3), "zca_matrix": np.zeros((2, 2))}, ["ZCA's mean must be float32"]),
        ({"soft_labels": np.zeros((20, 10))}, ["no probabilities"]),
        ({"class_names": ["one"]}, ["labels 0..9 are outside its 1 classes"]),
        ({"std": [0.0]}, ["std must be positive, not [0.0]"]),
    ],
)
def test_archives_that_do_not_fit(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **({"images": images().numpy(), "labels": classes().numpy(), **MNIST} | arrays))
    with refused(ValueError, *words):
        fastdd.import_synthetic(tmp_path / "a.npz")


def test_a_truncated_archive(tmp_path):
    np.savez(tmp_path / "a.npz", images=images().numpy(), labels=classes().numpy())
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    with refused(RuntimeError, "damaged"):
        fastdd.import_synthetic(tmp_path / "a.npz")


# Evaluation.


def test_test_images_are_normalised_as_the_set_is(result, c_digits):
    """A set in other units than the data set's scores as it would in those of the data set."""
    start = fastdd.data.load("c-digits")
    pixels = torch.from_numpy(start.train.images[:40]) / 255
    labels = torch.from_numpy(start.train.labels[:40])
    settings = {"nets": 1, "epochs": 3, "width": 8, "depth": 2, "dsa_strategy": "none", "device": "cpu"}
    other = replace(start, mean=(0.2,) * 3, std=(0.9,) * 3)
    path = result([[(pixels - 0.2) / 0.9, labels]])
    read = fastdd.import_synthetic(path, dataset="c-digits", mean=[0.2] * 3, std=[0.9] * 3)
    counts = [fastdd.evaluate(read, data, **settings).counts[0].right for data in (start, other)]
    assert torch.equal(*counts)


@pytest.mark.parametrize("write", ["dc", "mtt", "idc", "dcbench", "npz"])
def test_files_of_others_are_not_evaluated_unread(tmp_path, write, c_digits):
    path = tmp_path / ("a.npz" if write == "npz" else "a")
    fastdd.export_synthetic(made(), path, to=write)
    with refused(ValueError, f"fastdd import {path} --out FILE.safetensors"):
        fastdd.evaluate(path, c_digits)


def test_json_beside_is_readable(tmp_path):
    fastdd.export_synthetic(made(), tmp_path / "m", to="mtt")
    content = json.loads((tmp_path / "m" / "fastdd.json").read_text())
    assert set(content) == {"sha256", "metadata"}
    assert content["metadata"]["class_names"] == ["cat", "dog"]


def test_formats_are_all_there():
    assert set(exchange.FORMATS) == {"dc", "mtt", "idc", "dcbench", "npz", "folder"}


def test_mtt_normalises_cifar_100_as_cifar_10():
    assert exchange.constants("cifar100", "dc").mean == (0.5071, 0.4866, 0.4409)
    assert exchange.constants("cifar100", "mtt").mean == exchange.constants("cifar10", "mtt").mean
    assert exchange.constants("mine", "dc") is None
