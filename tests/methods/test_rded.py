"""RDED: the published selection and mosaic, literally, of the same crops; groups and weights; what is refused."""

import dataclasses
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import made, teacher, tiny

from fastdd import ops
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.methods import METHODS
from fastdd.methods.decoupled import Unit
from fastdd.methods.rded import _quotas

COLOUR = made("colour")
run = partial(tiny, "rded", candidates=12, crops=3, ipc=2, factor=2)


def method(config, data=COLOUR, weights=None):
    return METHODS["rded"](config, data, teacher("colour"), weights=weights)


def crops_of(config, label: int, number: int) -> torch.Tensor:
    """[crops, n, C, h, w] of all images of a class, as the method's keys have them."""
    rows = torch.from_numpy((COLOUR.train.labels == label).nonzero()[0])
    images = DeviceImages.of(COLOUR.train.images, COLOUR.mean, COLOUR.std).read(rows)
    keys = rng.lanes(rng.lanes(rng.key(config.seed, "crops", label), len(rows)), number)
    height, width = (side // config.factor for side in COLOUR.size)
    crops = [ops.random_crops(keys[:, m], COLOUR.size, ratio=(1, 1)) for m in range(number)]
    return torch.stack([ops.crop_resize(images, crop, (height, width)) for crop in crops])


@torch.no_grad()
def published(crops: torch.Tensor, label: int, ipc: int, factor: int, size: int, net) -> torch.Tensor:
    """Its selector and mixer: of every image the best crop, the best of these, cell after cell."""
    n, small = crops.shape[1], crops.shape[-1]
    before = (size - small) // 2
    border = (before, size - small - before) * 2
    losses = torch.stack([-F.softmax(net(F.pad(some, border)), 1)[:, label].log() for some in crops])
    best, which = losses.min(0)
    chosen = crops[which, torch.arange(n)][best.argsort()][: ipc * factor**2]
    result, part, top = torch.zeros(ipc, 3, size, size), 0, 0
    for row in range(factor):
        height, left = size // factor + (row < size % factor), 0
        for column in range(factor):
            width = size // factor + (column < size % factor)
            cell = F.interpolate(chosen[part * ipc : (part + 1) * ipc], size=(height, width))
            result[:, :, top : top + height, left : left + width] = cell
            left, part = left + width, part + 1
        top += height
    return result


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_of_given_crops_the_mosaics_have_the_published_bits(factor):
    config = run(factor=factor, ipc=12 // factor**2)
    for label in range(3):
        unit = Unit(range(label, label + 1), range(config.ipc))
        found, loss = method(config).make(unit)
        crops = crops_of(config, label, config.crops)
        assert torch.equal(found, published(crops, label, config.ipc, factor, 8, teacher("colour").net))
        assert loss > 0


def test_candidates_are_a_part_of_the_class_and_a_second_crop_comes_after_all_first_ones():
    few = run(candidates=2, crops=4, factor=1, ipc=5)
    one = method(few)
    rows = torch.arange(12)
    segments = few.mode.segments(one._batch(0, rows))
    kept, losses = one._best(0, rows, segments.part(0, 1), 5, segments)
    assert kept[:, 0].unique().numel() == 2
    assert kept.unique(dim=0).shape[0] == 5
    # The best of both images, then their second.
    assert losses[0] <= losses[1]
    assert losses[2] <= losses[3]
    assert {*kept[:2, 0].tolist()} == {*kept[2:4, 0].tolist()}


@pytest.mark.parametrize(("mode", "shares"), [("fairdd", [0.5, 0.5]), ("fairdd-iw", [0.25, 0.75])])
def test_groups_have_as_many_images_as_their_segments_count(mode, shares):
    """In class 0, 9 images are of group 0 and 3 of group 1."""
    config = run(debias=mode, ipc=4, factor=1)
    one = method(config)
    segments = config.mode.segments(one._batch(0, torch.arange(12)))
    counts = torch.bincount(one._slots(segments), minlength=2)
    assert counts.tolist() == [share * 4 for share in shares]


def test_weights_rank_crops_and_an_image_of_weight_0_is_in_none():
    config = run(debias="kde", ipc=3, factor=1, crops=2)
    weights = torch.zeros(len(COLOUR.train))
    weights[[0, 1, 2, 3]] = torch.tensor([1.0, 1.0, 1.0, 1e9])
    weights[12:] = 1
    one = method(config, weights=weights)
    rows = torch.arange(12)
    segments = config.mode.segments(one._batch(0, rows))
    kept, _ = one._best(0, rows, segments.part(0, 1), 3, segments)
    assert kept[0, 0] == 3
    assert {*kept[:, 0].tolist()} <= {0, 1, 2, 3}


def test_quotas():
    assert _quotas(torch.tensor([0.2, 0.3, 0.5]).double().numpy(), 7, torch.tensor([9, 9, 9]).numpy()).tolist() == [
        1,
        2,
        4,
    ]


def test_a_group_with_few_images_gives_what_it_has_and_the_others_the_rest():
    config = run(debias="fairdd", ipc=10, factor=1, crops=1)
    one = method(config)
    slots = one._slots(config.mode.segments(one._batch(0, torch.arange(12))))
    assert torch.bincount(slots).tolist() == [7, 3]


def test_what_does_not_fit_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"class 'class 0' has 12 images, with 3 crops of each fewer than the 40 of"):
        method(run(ipc=10))
    with pytest.raises(ValueError, match="factor 9 is more than the 8 pixels"):
        method(run(factor=9, ipc=1))
    with pytest.raises(ValueError, match=r"rded has debias none, .*, not fairdd-batch: it chooses crops"):
        run(debias="fairdd-batch")
    with pytest.raises(ValueError, match="evaluation mode"):
        METHODS["rded"](run(), COLOUR, dataclasses.replace(teacher("colour"), net=torch.nn.Linear(1, 1)))
