"""Crops against torch's own resize of each crop by itself, in float64."""

import pytest
import torch
import torch.nn.functional as F

from fastdd import ops
from fastdd.core import rng
from fastdd.ops.crop_resize import Crops, _places, whole

SIZE = (13, 10)


def images(n: int = 6) -> torch.Tensor:
    return rng.normal(rng.key(0, "images"), n * 3 * 130).double().view(n, 3, *SIZE)


def literal(image: torch.Tensor, crops: Crops, i: int, size: tuple[int, int]) -> torch.Tensor:
    top, left, height, width, mirrored = (values[i].item() for values in crops)
    part = image[None, :, top : top + height, left : left + width]
    found = F.interpolate(part, size=size, mode="bilinear", antialias=True)[0]
    return found.flip(-1) if mirrored else found


@pytest.mark.parametrize("size", [SIZE, (5, 4), (20, 31)])
def test_a_crop_is_resized_as_torch_does_it_with_antialias(size):
    crops = ops.random_crops(rng.lanes(rng.key(1, "crops"), 6), SIZE, mirror=0.5)
    found = ops.crop_resize(images(), crops, size)
    for i, image in enumerate(images()):
        assert (found[i] - literal(image, crops, i, size)).abs().max() < 1e-12


def test_strips_are_shuffled_before_the_crop():
    keys = rng.lanes(rng.key(2, "strips"), 6)
    orders, crops = ops.strip_orders(keys, 3), ops.random_crops(keys, SIZE, area=(1 / 3, 1))
    found = ops.crop_resize(images(), crops, SIZE, orders)
    for i, image in enumerate(images()):
        for side, order in ((1, orders[i, 0]), (2, orders[i, 1])):
            step = image.shape[side] // 3
            strips = [*image.split([step, step, image.shape[side] - 2 * step], side)]
            image = torch.cat([strips[j] for j in order.tolist()], side)
        assert (found[i] - literal(image, crops, i, SIZE)).abs().max() < 1e-12
    assert sorted(_places(orders[:1, 0], 13)[0].tolist()) == [*range(13)]


def test_crops_lie_in_the_image_and_have_the_areas_and_ratios_asked_for():
    crops = ops.random_crops(rng.lanes(rng.key(3, "many"), 4000), (32, 32), area=(0.25, 0.5), mirror=0.5)
    assert (crops.top >= 0).all()
    assert (crops.top + crops.height <= 32).all()
    assert (crops.left >= 0).all()
    assert (crops.left + crops.width <= 32).all()
    area = crops.height * crops.width / 1024
    assert area.min() > 0.2
    assert area.max() < 0.55
    assert abs(area.mean() - 0.375) < 0.01
    assert abs(crops.mirrored.float().mean() - 0.5) < 0.05
    ratio = crops.width / crops.height
    assert ratio.min() > 0.7
    assert ratio.max() < 1.43
    few = ops.random_crops(rng.lanes(rng.key(3, "many"), 7), (32, 32), area=(0.25, 0.5), mirror=0.5)
    assert all(torch.equal(some, of_all[:7]) for some, of_all in zip(few, crops, strict=True))
    # No crop of this ratio can have the area: the largest about the centre.
    flat = ops.random_crops(rng.lanes(rng.key(3, "flat"), 2), (8, 32), area=(1, 1), ratio=(1, 1))
    assert [values[0].item() for values in flat[:4]] == [0, 12, 8, 8]
    # Of an odd number of pixels beside it the smaller half is before it, as torchvision has it: (13 - 10) // 2.
    odd = ops.random_crops(rng.lanes(rng.key(3, "flat"), 2), SIZE, area=(1, 1), ratio=(1, 1))
    assert [values[0].item() for values in odd[:4]] == [1, 0, 10, 10]


def test_the_whole_image_stays_and_derivatives_are_those_of_the_formula():
    x = images(2).requires_grad_()
    assert torch.equal(ops.crop_resize(x, whole(2, SIZE), SIZE), x)
    crops = ops.random_crops(rng.lanes(rng.key(4, "crops"), 2), SIZE)
    assert torch.autograd.gradcheck(lambda x: ops.crop_resize(x, crops, (4, 3)), (x,))


def test_areas_and_ratios_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"not \(0, 2\)"):
        ops.random_crops(rng.lanes(1, 1), SIZE, area=(0, 2))
