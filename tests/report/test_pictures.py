"""Preview pictures: one class a row, de-normalised."""

import numpy as np
import torch
from PIL import Image

from fastdd import report
from fastdd.data import Dataset, Split, SyntheticSet, Zca, load
from fastdd.data.initial import random_set
from fastdd.report import pictures


def synthetic(channels):
    images = torch.zeros(6, channels, 16, 16)
    images[3] = 1.0  # class 1, first image: white after de-normalisation with mean = std = 0.5
    metadata = {"class_names": ["a", "b"], "mean": [0.5] * channels, "std": [0.5] * channels}
    return SyntheticSet(images, torch.tensor([0, 0, 0, 1, 1, 1]), metadata)


def test_grid(tmp_path):
    report.preview(synthetic(3), tmp_path / "p.png")
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    cell = 4 * 16 + 2
    assert picture.shape == (2 * cell + 2, 3 * cell + 2, 3)
    assert (picture[2 + cell + 5, 2 + 5] == 255).all()
    assert (picture[2 + 5, 2 + 5] == 128).all()


def test_gray_and_at_most_so_many_columns(tmp_path):
    report.preview(synthetic(1), tmp_path / "p.png", columns=2)
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    assert picture.shape == (2 * 66 + 2, 2 * 66 + 2)


def test_whitened_images_are_shown_as_they_were(tmp_path):
    digits = load("c-digits")
    report.preview(random_set(digits, 2), tmp_path / "normalised.png")
    report.preview(random_set(digits, 2, zca=Zca.fit(digits.train.images)), tmp_path / "whitened.png")
    assert (tmp_path / "whitened.png").read_bytes() == (tmp_path / "normalised.png").read_bytes()


def test_a_data_set_has_a_class_a_row_and_a_group_a_column(tmp_path):
    images = np.full((5, 3, 16, 16), 10, np.uint8) * np.arange(5, dtype=np.uint8)[:, None, None, None]
    # Class 0: one image of group 0, three of group 1. Class 1: one of group 1.
    split = Split(images, np.array([0, 0, 0, 0, 1]), np.array([0, 1, 1, 1, 1]))
    data = Dataset("toy", split, split, ("a", "b"), ("g", "h"), (0.5,) * 3, (0.5,) * 3, {})
    report.preview_dataset(data, tmp_path / "p.png")
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    cell = 4 * 16 + 2
    assert picture.shape == (2 * cell + 2, 4 * cell + 2, 3)
    shown = picture[2 + cell // 2 :: cell, 2 + cell // 2 :: cell, 0]
    assert shown.tolist() == [[0, 200, 10, 20], [200, 200, 40, 200]]


def test_a_data_set_of_many_classes_shows_twenty(tmp_path):
    labels = np.arange(200)
    split = Split(np.zeros((200, 1, 8, 8), np.uint8), labels, np.zeros(200, np.int64))
    names = tuple(map(str, range(200)))
    report.preview_dataset(
        Dataset("toy", split, split, names, ("all",), (0.5,), (0.5,), {}), tmp_path / "p.png", each=1
    )
    assert np.asarray(Image.open(tmp_path / "p.png")).shape == (20 * 66 + 2, 68)


def test_behind_an_image_that_holds_several_are_those_that_networks_see(tmp_path):
    made = synthetic(3)
    made.images[0, :, 8:, 8:] = 1.0  # of the first image, the last part
    made = SyntheticSet(made.images, made.labels, made.metadata | {"formation": 2})
    report.preview(made, tmp_path / "p.png")
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    cell = 4 * 16 + 2
    assert picture.shape == (2 * cell + 2, 10 * cell + 2, 3)  # two images a row, five pictures each
    corners = [picture[2 + 5, 2 + column * cell + 5, 0] for column in range(10)]
    assert corners == [128] * 4 + [255] + [128] * 5
    assert picture[2 + 60, 2 + 60, 0] == 255


def test_of_an_image_that_holds_many_all_are_shown(tmp_path):
    made = SyntheticSet(synthetic(1).images, synthetic(1).labels, synthetic(1).metadata | {"formation": 4})
    report.preview(made, tmp_path / "p.png")
    assert np.asarray(Image.open(tmp_path / "p.png")).shape[1] == 17 * 66 + 2


def test_of_many_classes_as_many_as_fit_are_shown_and_others_are_not_read(tmp_path, monkeypatch):
    labels = torch.arange(10).repeat_interleave(3)
    images = (labels.float() / 10)[:, None, None, None].expand(-1, 1, 64, 64)
    metadata = {"class_names": list(map(str, range(10))), "mean": [0.0], "std": [1.0]}
    monkeypatch.setattr(pictures, "_PIXELS", 4 * 2 * 64 * 64)
    read, right = [], SyntheticSet.to_uint8
    monkeypatch.setattr(SyntheticSet, "to_uint8", lambda made: read.append(len(made.images)) or right(made))
    report.preview(SyntheticSet(images.contiguous(), labels, metadata), tmp_path / "p.png", columns=2)
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    assert picture.shape[:2] == (4 * 66 + 2, 2 * 66 + 2)
    assert picture[2 + 33 :: 66, 40].reshape(4, -1)[:, 0].tolist() == [0, 76, 153, 230]  # classes 0, 3, 6 and 9
    assert read == [8]
