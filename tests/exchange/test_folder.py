"""Folders of images."""

import os

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


def test_classes_that_the_data_set_does_not_have_are_refused(pictures):
    with refused(ValueError, "pictures: 'ant' is no class of the data set (airplane, automobile, ", "by their names"):
        fastdd.import_synthetic(pictures({"ant": [colour(1)], "bird": [colour(2)]}), dataset="cifar10")


@pytest.mark.parametrize("names", [["0", "1", "10", "2"], ["00", "01", "10", "02"]])
def test_numbers_of_classes_are_not_sorted_as_names(pictures, tmp_path, names):
    folder = pictures({name: [colour(int(name))] for name in names})
    read = fastdd.import_synthetic(folder, dataset="cifar100")  # published code has numbers for names too
    assert read.labels.tolist() == read.to_uint8()[:, 0, 0, 0].tolist()


def test_folders_of_wordnet_numbers_are_the_classes_that_they_name(pictures):
    folder = pictures({"n01440764": [colour(1)], "n03888257": [colour(2)]})
    read = fastdd.import_synthetic(folder, dataset="imagenette")
    assert [read.metadata["class_names"][label] for label in read.labels] == ["tench", "parachute"]


def test_names_that_a_folder_can_not_have_are_known_without_the_record(tmp_path):
    original = made(labels=(0, 1, 2), metadata={"class_names": ["T-shirt/top", "Trouser", "Pullover"]})
    fastdd.export_synthetic(original, tmp_path / "f", to="folder")
    (tmp_path / "f" / "fastdd.json").unlink()
    read = fastdd.import_synthetic(tmp_path / "f", dataset="fashion-mnist", mean=[0.5] * 3, std=[0.5] * 3)
    names = [read.metadata["class_names"][label] for label in read.labels]
    assert names == ["Pullover", "T-shirt/top", "Trouser"]


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


def test_images_are_as_a_viewer_shows_them(pictures):
    folder = pictures({"a": [], "b": []})
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(folder / "a/deep.png")
    assert read_gray(folder) == [128]
    turned, exif = np.zeros((4, 4), np.uint8), Image.Exif()
    turned[:, :2], exif[0x0112] = 255, 6  # turned clockwise, the left half is the upper
    Image.fromarray(turned).save(folder / "b/turned.png", exif=exif)
    read = fastdd.import_synthetic(folder, mean=[0.5], std=[0.5])
    assert read.to_uint8()[1, 0, :, 0].tolist() == [255, 255, 0, 0]
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(folder / "b/clear.png")
    read = fastdd.import_synthetic(folder, mean=[0.5] * 3, std=[0.5] * 3)
    assert (read.to_uint8()[1] == 255).all()


def read_gray(folder):
    return fastdd.import_synthetic(folder, mean=[0.5], std=[0.5]).to_uint8()[:, 0, 0, 0].tolist()


def test_what_is_left_out_is_noted(pictures):
    folder = pictures({"a": [gray(1)], "empty": []})
    for name in ("a/list.txt", "a/.hidden.png", "README"):
        (folder / name).write_text("")
    read = fastdd.import_synthetic(folder, mean=[0.5], std=[0.5])
    assert read.metadata["source"]["notes"] == [
        "left out, hidden files: 1 (a/.hidden.png)",
        "left out, files of the type .txt: 1 (a/list.txt)",
        "left out, files beside the class folders: 1 (README)",
        "left out, folders without images: 1 (empty)",
    ]


def test_postscript_and_pipes_are_refused(pictures):
    folder = pictures({"a": [gray(1)]})
    (folder / "a/0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    with refused(RuntimeError, "0.png can't be read as an image: not an image (PNG, JPEG, "):
        read_gray(folder)
    (folder / "a/0.png").unlink()
    os.mkfifo(folder / "a/0.png")
    with refused(RuntimeError, "0.png can't be read as an image: not a regular file"):
        read_gray(folder)
