"""What runs start from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastdd
from fastdd.data import Dataset, Split
from fastdd.data.initial import first_images, mosaics


@pytest.mark.parametrize(("size", "factor"), [((8, 8), 2), ((7, 10), 3), ((5, 5), 1)])
def test_mosaics_are_images_shrunk_to_parts(size, factor):
    """Published: part by part, the first ones a pixel larger where the factor does not divide the side."""
    ipc = 2
    images = torch.rand(ipc * factor**2, 3, *size)
    expected, number, top = torch.full((ipc, 3, *size), torch.nan), 0, 0
    for i in range(factor):
        height, left = size[0] // factor + (i < size[0] % factor), 0
        for j in range(factor):
            width = size[1] // factor + (j < size[1] % factor)
            part = F.interpolate(images[number * ipc : (number + 1) * ipc], size=(height, width))
            expected[:, :, top : top + height, left : left + width] = part
            number, left = number + 1, left + width
        top += height
    assert torch.equal(mosaics(images, factor), expected)


def test_a_set_of_mosaics_has_images_of_their_own_class_and_repeats_where_there_are_too_few():
    labels = np.array([0] * 20 + [1] * 3)
    images = np.arange(1, 24, dtype=np.uint8)[:, None, None, None].repeat(4, 2).repeat(4, 3)
    split = Split(images, labels, np.zeros(23, np.int64))
    data = Dataset("made", split, split, ("a", "b"), ("x",), (0.0,), (1.0,), {})
    images = first_images(data, 2, 0, "mix", factor=2)
    drawn = (images[:, 0, ::2, ::2] * 255).round().long()
    assert sorted(set(drawn[:2].flatten().tolist())) == sorted(drawn[:2].flatten().tolist())
    assert set(drawn[:2].flatten().tolist()) <= set(range(1, 21))
    assert set(drawn[2:].flatten().tolist()) == {21, 22, 23}
    assert (images[:, :, :2, :2] == images[:, :, :1, :1]).all()


def test_mosaics_of_more_images_than_pixels_are_refused():
    with pytest.raises(ValueError, match="factor must be 1 to 16, the side of images of 16 x 16, not 40"):
        fastdd.distill(fastdd.data.load("c-digits"), method="idc", ipc=1, factor=40)
