"""RISE: the formula, its masks, and what it says of networks of which it is known what they read."""

import numpy as np
import pytest
import torch
from torch import nn

from fastdd import models
from fastdd.evaluation.saliency import rise, rise_masks, share_inside


class ReadsQuadrant(nn.Module):
    """Two logits, of the mean of a quarter of the image; all else is ignored."""

    def forward(self, images):
        height, width = images.shape[-2] // 2, images.shape[-1] // 2
        seen = images[..., :height, width:].mean((1, 2, 3))
        return torch.stack([6 * seen, torch.full_like(seen, 3)], 1)


@pytest.mark.parametrize("size", [16, 32, 56])
@pytest.mark.parametrize("cells", [4, 7])
def test_a_network_that_reads_a_quadrant_has_its_saliency_there(size, cells):
    images = torch.ones(1, 1, size, size)
    found = rise(ReadsQuadrant(), images, torch.zeros(1, dtype=torch.int64), masks=2000, side=cells, key=1)
    inside = np.zeros((1, size, size), bool)
    inside[:, : size // 2, size // 2 :] = True
    (share,) = share_inside(found.excess, inside)
    assert share >= 0.9
    salient = found.excess >= found.excess.max() / 2
    assert salient[inside].mean() > 0.8  # nearly all of it counts, not a spot
    # The published map has a floor, the mean probability, so that its sum says little: a quarter is chance.
    raw = found.raw[inside].sum() / found.raw.sum()
    assert 0.25 < raw < 0.35


def test_a_network_that_reads_nothing_has_no_saliency():
    class Constant(nn.Module):
        def forward(self, images):
            return torch.zeros(len(images), 4)

    found = rise(Constant(), torch.randn(2, 3, 8, 8), torch.tensor([0, 3]), masks=50)
    assert np.abs(found.excess).max() < 1e-12
    assert found.probability == pytest.approx([0.25, 0.25])


def test_it_is_the_published_sum():
    net = models.build("ConvNet", 3, 5, (16, 16), width=4, depth=1, key=3).double().eval()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([4, 1])
    masks = rise_masks(300, (16, 16), 4, key=9).double()  # more than a batch of forward passes
    for image, label, raw in zip(images, labels, rise(net, images, labels, masks=300, side=4, key=9).raw, strict=True):
        expected = torch.zeros(16, 16, dtype=torch.float64)
        with torch.no_grad():
            for mask in masks:
                expected += net((image * mask)[None]).softmax(1)[0, label] * mask
        assert np.abs(raw - (expected / (0.5 * 300)).numpy()).max() < 1e-12


def test_masks_show_half_are_smooth_and_are_the_same_however_many_are_drawn():
    masks = rise_masks(400, (10, 14), 4, key=2)
    assert masks.shape == (400, 10, 14)
    assert (masks.min().item(), masks.max().item()) == pytest.approx((0, 1))
    assert abs(masks.mean() - 0.5) < 0.02
    assert masks.diff(dim=1).abs().max() <= 1 / 3 + 1e-6  # of cells of 3 pixels, and 4
    assert torch.equal(masks[:7], rise_masks(7, (10, 14), 4, key=2))
    assert not torch.equal(masks, rise_masks(400, (10, 14), 4, key=3))


def test_shares_by_hand():
    excess = np.array([[[4.0, 2.0, 1.0, -9.0]], [[0.0, -1.0, -1.0, 0.0]]])
    inside = np.array([[[False, True, True, True]], [[True] * 4]])
    assert share_inside(excess, inside) == [2 / 6, None]
    assert share_inside(excess, inside, at_least=0) == [3 / 7, None]


def test_what_can_not_be_is_told():
    with pytest.raises(ValueError, match="a mask of images of 4x6 pixels has 2 to 4 cells a side, not 7"):
        rise_masks(1, (4, 6), 7, key=0)
    with pytest.raises(ValueError, match="masks must be at least 1, not 0"):
        rise(ReadsQuadrant(), torch.ones(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), masks=0)
