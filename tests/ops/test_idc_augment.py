"""IDC's augmentation against its operations one after another."""

import pytest
import torch

from fastdd.core import rng
from fastdd.ops import Param, augment, augment_passes, idc_params, identity_params
from fastdd.reference import augment as reference

SIZE = (8, 12)
COLORS = range(Param.BRIGHTNESS, Param.CONTRAST + 1)
CUTS = range(Param.TOP, Param.RIGHT + 1)


def keys(n=64):
    return rng.lanes(rng.key(0, "keys"), n)


def alone(row, columns):
    """A row that has of another these columns only."""
    found = identity_params(1, dtype=row.dtype)[0]
    found[[*columns]] = row[[*columns]]
    return found[None]


@pytest.mark.parametrize("strategy", ["color_crop_cutout", "flip_color_scale_rotate_crop_cutout", "color_crop"])
def test_two_passes_are_flip_colors_another_and_cutout_in_turn(strategy):
    images = torch.rand(64, 3, *SIZE, dtype=torch.float64)
    params = idc_params(strategy, keys(), SIZE, dtype=torch.float64)
    expected = []
    for image, (first, second) in zip(images, params, strict=True):
        x = image[None]
        turns = [(first, range(Param.BRIGHTNESS)), *((first, [color]) for color in COLORS)]
        for row, columns in [*turns, (second, range(Param.BRIGHTNESS)), (second, CUTS)]:
            x = reference.augment(x, alone(row, columns))
        expected.append(x)
    torch.testing.assert_close(augment_passes(images, params), torch.cat(expected), rtol=1e-12, atol=1e-12)


def test_what_is_named_is_applied_always_but_the_others_one_at_a_time():
    first, second = idc_params("flip_color_crop_scale_rotate_cutout", keys(), SIZE).unbind(1)
    assert (first[:, list(COLORS)] != identity_params(1)[0, list(COLORS)]).all()
    flipped = first[:, Param.A] == -1
    assert 16 < flipped.sum() < 48
    assert (second[:, Param.BOTTOM] > second[:, Param.TOP]).all()
    crop = (second[:, [Param.A, Param.E]] == 1).all(1)
    rotate = second[:, Param.B] != 0
    scale = ~crop & ~rotate
    assert min(crop.sum(), rotate.sum(), scale.sum()) > 8


def test_an_operation_that_is_shared_is_that_of_all_rows():
    _, second = idc_params("color_scale_rotate", keys(), SIZE, shared_op=True).unbind(1)
    rotate = second[:, Param.B] != 0
    assert rotate.all() or not rotate.any()
    assert len(second[:, Param.A].unique()) > 32


def test_one_pass_where_one_is_enough():
    images = torch.rand(4, 3, *SIZE)
    assert torch.equal(augment_passes(images, idc_params("none", keys(4), SIZE)), images)
    for strategy in ("color_flip", "crop_cutout", "cutout", "rotate"):
        assert idc_params(strategy, keys(4), SIZE).shape == (4, 1, len(Param))


def test_bytes_are_normalised_in_the_first_pass():
    pixels = torch.randint(0, 256, (5, 3, *SIZE), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    params, rows = idc_params("color_crop_cutout", keys(2), SIZE), torch.tensor([0, 1, 1, 0, 1])
    first, second = params.unbind(1)
    expected = augment(augment(pixels, first.contiguous(), rows, mean=mean, std=std), second.contiguous(), rows)
    assert torch.equal(augment_passes(pixels, params, rows, mean=mean, std=std), expected)
