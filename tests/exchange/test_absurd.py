"""Values in files of other projects that no set can have: refused, with the file."""

import json
import os

import numpy as np
import pytest
import torch

import fastdd
from fastdd import exchange
from tests.exchange.samples import classes, images, made, read_mnist, refused


@pytest.mark.parametrize("value", [1e38, -1e38, 1e7])
def test_pixels_beyond_what_networks_train_on(tmp_path, value):
    pixels = torch.rand(20, 1, 28, 28)
    pixels[3, 0, 2, 2] = value
    torch.save([pixels, classes()], tmp_path / "data.pt")
    with refused(ValueError, "data.pt", "can't be a synthetic set: the values of image 3"):
        read_mnist(tmp_path / "data.pt")


def test_normalisations_of_no_pixels(result):
    path = result()
    for mean, std, words in (
        ([1e300], [1.0], "are of no pixels"),
        ([0.5], [1e-300], "are of no pixels"),
        ([float("nan")], [1.0], "finite"),
    ):
        with refused(ValueError, str(path), words):
            fastdd.import_synthetic(path, mean=mean, std=std)


def test_labels_that_no_class_has_are_told_with_the_file(tmp_path):
    torch.save([torch.rand(20, 1, 28, 28), classes() - 1], tmp_path / "data.pt")
    with refused(ValueError, "data.pt", "labels -1..8 are outside"):
        read_mnist(tmp_path / "data.pt")


@pytest.mark.parametrize(
    "part", [images().to_sparse(), torch.empty(20, 1, 28, 28, device="meta"), images()[:1].expand(10**6, -1, -1, -1)]
)
@pytest.mark.parametrize("factor", [None, 2])
def test_tensors_without_values_of_their_own(tmp_path, part, factor):
    torch.save([part, classes()], tmp_path / "data.pt")
    with refused((ValueError, RuntimeError), "data.pt: images"):
        read_mnist(tmp_path / "data.pt", factor=factor)


@pytest.mark.parametrize("changes", [{"run": {"method": "dm"}}, {"run": 5}, {"ipc": "2"}, {"provenance": [1]}])
def test_a_record_that_is_none_counts_as_absent(tmp_path, changes):
    exchange.write(made(), tmp_path / "x", "mtt")
    record = json.loads((tmp_path / "x" / "fastdd.json").read_text())
    record["metadata"] |= changes
    (tmp_path / "x" / "fastdd.json").write_text(json.dumps(record))
    with refused(ValueError, "mtt files don't say what their images are normalised with"):
        fastdd.import_synthetic(tmp_path / "x")


def test_folders_that_the_record_does_not_name(tmp_path):
    exchange.write(made(), tmp_path / "x", "folder")
    (tmp_path / "x" / "cat").rename(tmp_path / "x" / "cow")
    record = json.loads((tmp_path / "x" / "fastdd.json").read_text())
    record["sha256"] = exchange.sha256(sorted((tmp_path / "x").glob("*/*.png")))
    (tmp_path / "x" / "fastdd.json").write_text(json.dumps(record))
    with refused(ValueError, "fastdd.json names other folders than there are", "'cow'"):
        fastdd.import_synthetic(tmp_path / "x")


def test_an_archive_whose_names_are_no_words(tmp_path):
    np.savez(tmp_path / "a.npz", images=images().numpy(), labels=classes().numpy(), class_names=np.array(3j))
    with refused(ValueError, "a.npz is damaged: 'complex' object is not iterable"):
        read_mnist(tmp_path / "a.npz")


def test_soft_labels_and_parts_of_images_of_another_kind_are_told_with_the_file(tmp_path):
    rows = np.ones((20, 3, 5), np.float32)
    np.savez(tmp_path / "a.npz", images=images().numpy(), labels=classes().numpy(), soft_labels=rows)
    with refused(ValueError, "a.npz: its soft labels are float32 [20, 3, 5]"):
        read_mnist(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", images=images().numpy(), labels=np.ones((20, 0), np.float32))
    with refused(ValueError, "a.npz: its soft labels are float32 [20, 0]"):
        read_mnist(tmp_path / "a.npz")
    torch.save([torch.rand(20, 1, 28, 1), classes()], tmp_path / "data.pt")
    with refused(ValueError, "data.pt can't be decoded: a factor of 1 to 1"):
        read_mnist(tmp_path / "data.pt", factor=2)
    torch.save([torch.rand(20, 1, 28, 28), classes().to(torch.complex64)], tmp_path / "data.pt")
    with refused(ValueError, "data.pt"):
        read_mnist(tmp_path / "data.pt", factor=2)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "x.pt")
    with refused(ValueError, "x.pt is a pipe or a device, not a file"):
        read_mnist(tmp_path / "x.pt")


def test_arrays_of_another_byte_order_are_read(tmp_path):
    arrays = {"images": images().numpy(), "labels": classes().numpy()}
    np.savez(
        tmp_path / "a.npz", **{name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    )
    read = read_mnist(tmp_path / "a.npz")
    assert torch.equal(read.images, images())
    assert torch.equal(read.labels, classes())


def test_a_step_size_without_a_value(trajectory_matching):
    rate = torch.empty((), device="meta")
    folder = trajectory_matching(images_best=images(), labels_best=classes(), lr_best=rate)
    with refused(ValueError, "lr_best.pt: the step size must be a plain tensor"):
        read_mnist(folder)
