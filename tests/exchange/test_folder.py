"""Folders of images."""

import numpy as np
import pytest
from PIL import Image

import fastdd
from tests.exchange.samples import made, read_mnist, refused


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
