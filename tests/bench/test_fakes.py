"""The study of how well fake images are told from real ones."""

import numpy as np
import pytest
import torch

from fastdd.bench.studies.fakes import of_synthetic, probe
from fastdd.data import Dataset, Split, SyntheticSet


def noise(seed: int) -> Split:
    images = np.random.default_rng(seed).integers(0, 200, (80, 3, 8, 8), np.uint8)
    return Split(images, np.arange(80) % 2, np.zeros(80, np.int64))


def test_what_differs_is_told_apart_and_what_does_not_is_not():
    data = Dataset("noise", noise(0), noise(1), ("a", "b"), ("any",), (0.5,) * 3, (0.25,) * 3, {})
    settings = {"width": 4, "depth": 1, "epochs": 4, "batch_train": 16, "lr": 0.01}
    assert probe(noise(0), noise(1), data, **settings) == pytest.approx(50, abs=17)  # three errors of 80 fair coins
    striped = noise(2)
    striped.images[:, :, ::2] //= 2  # every other row is darker
    assert probe(noise(0), striped, data, **settings) > 90


def test_images_of_a_set_are_those_that_networks_see():
    pixels = torch.tensor([0, 51, 255], dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 2, 2) / 255
    metadata = {"class_names": ["a", "b"], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]}
    mean, std = (torch.tensor(metadata[name])[:, None, None] for name in ("mean", "std"))
    synthetic = SyntheticSet(((pixels - mean) / std).contiguous(), torch.tensor([1]), metadata)
    made = of_synthetic(synthetic)
    assert made.images[0, :, 0, 0].tolist() == [0, 51, 255]
    assert made.labels.tolist() == [1]
