"""What networks see of the images that are stored."""

import pytest
import torch
from torch.nn.functional import interpolate

from fastdd import ops
from fastdd.methods.parts.formation import MultiFormation, Pixels

MEAN, STD = (0.4, 0.5), (0.2, 0.3)


def normalise(pixels):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def pixels(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_pixels_are_decoded_padded_with_grey_and_normalised_an_images_parts_together():
    stored = pixels(3, 2, 7, 7)
    whole = torch.full((3, 2, 8, 8), 0.5)
    whole[:, :, :7, :7] = stored
    corners = [whole[:, :, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]
    seen = normalise(torch.stack([interpolate(part, 7, mode="bilinear") for part in corners], 1).flatten(0, 1))
    formation = MultiFormation(2, MEAN, STD)
    assert formation.per_image == 4
    torch.testing.assert_close(formation(stored), seen, rtol=0, atol=2e-6)
    some = torch.tensor([[2, 3], [0, 1]])
    torch.testing.assert_close(formation(stored, some), seen[[11, 1]], rtol=0, atol=2e-6)


def test_stored_are_pixels_and_told_are_normalised_images():
    images = normalise(pixels(2, 2, 5, 5))
    formation = MultiFormation(2, MEAN, STD)
    stored = formation.store(images)
    torch.testing.assert_close(stored, pixels(2, 2, 5, 5))
    torch.testing.assert_close(formation.normalised(stored), images)
    assert formation.describe() == {"formation": 2}


def test_a_factor_of_one_normalises_only():
    stored = pixels(2, 2, 5, 5)
    formation = MultiFormation(1, MEAN, STD)
    assert torch.equal(formation(stored), normalise(stored))
    assert torch.equal(formation(stored, torch.tensor([[1, 0]])), normalise(stored)[1:])
    assert (formation.per_image, formation.describe()) == (1, {})


@pytest.mark.parametrize("passes", [None, 1, 2])
def test_seen_and_augmented_is_augmented_what_is_seen(passes):
    stored, params = pixels(2, 2, 6, 6), ops.dsa_params("scale_rotate", torch.arange(3), (6, 6))
    if passes:
        params = ops.dsa_params("color_scale_rotate", torch.arange(3 * passes), (6, 6)).view(3, passes, -1)
    some, rows = torch.tensor([[1, 0], [0, 0], [1, 0]]), torch.tensor([2, 0, 1])
    for formation in (Pixels(), MultiFormation(1, MEAN, STD), MultiFormation(2, MEAN, STD)):
        expected = ops.augment_passes(formation(stored, some), params, rows)
        torch.testing.assert_close(formation.augmented(stored, params, rows, some), expected)
