"""Random resized crops of a batch, each image's by a key of its own: crop, resize, mirror and shuffled strips at once.

All of them are linear and separable, so that an image becomes ``R_y X R_x^T``: two batched matrix products, in which an
image's two matrices say what is done with it. :func:`fastdd.ops.augment` can't do it, whose samples are of four pixels:
a crop that shrinks is averaged over more (``antialias``), and no sample reaches beyond its crop.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastdd.core import rng

# As torchvision draws them: tries of an image before its centre is taken, and numbers of a try.
_TRIES, _DRAWS = 10, 4
RATIO = (3 / 4, 4 / 3)


class Crops(NamedTuple):
    """Crops of images, int64 [N] each, and whether they are mirrored.

    Attributes:
        top, left, height, width: in pixels.
        mirrored: bool [N].
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor

    def take(self, which: Tensor) -> "Crops":
        """Some of them."""
        return Crops(*(values[which] for values in self))


def random_crops(
    keys: Tensor,
    size: tuple[int, int],
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = RATIO,
    mirror: float = 0.0,
) -> Crops:
    """One crop a key, distributed as those of torchvision's ``RandomResizedCrop``.

    Ten times an area, uniform on ``area`` of the image's, and a ratio of width to height, log-uniform on ``ratio``; the
    first whose sides, rounded, fit in the image, anywhere; else the largest about the centre with a ratio in ``ratio``.

    Args:
        keys: int64 [N], from :mod:`fastdd.core.rng`.
        size: (H, W) of the images.
        area: least and largest, in units of the image's, above 0 and at most 1.
        ratio: least and largest, above 0.
        mirror: probability that a crop is mirrored.

    Returns:
        On keys' device. Deterministic in the keys; crop i depends on key i alone.

    Raises:
        ValueError: an area or a ratio that is none.

    >>> random_crops(rng.lanes(rng.key(0, "docs"), 2), (32, 32), ratio=(1, 1)).height
    tensor([20, 31])
    """
    if not 0 < area[0] <= area[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"area must lie in 0..1 and ratio above 0, least first, not {area} and {ratio}")
    height, width = size
    u = rng.uniform(keys, _TRIES * _DRAWS + 1).double()
    of_area, of_ratio, of_top, of_left = u[:, 1:].unflatten(1, (_TRIES, _DRAWS)).unbind(2)
    areas = height * width * (area[0] + (area[1] - area[0]) * of_area)
    ratios = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * of_ratio)
    w, h = (areas * ratios).sqrt().round(), (areas / ratios).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.long().argmax(1, keepdim=True)

    def tried(values: Tensor) -> Tensor:
        return values.gather(1, first)[:, 0]

    central_h, central_w = _central(size, ratio)
    found = fits.any(1)
    h, w = (torch.where(found, tried(side), central) for side, central in ((h, central_h), (w, central_w)))
    places = ((of_top, height - h), (of_left, width - w))
    top, left = (torch.where(found, (tried(u) * (room + 1)).floor(), (room / 2).floor()).long() for u, room in places)
    return Crops(top, left, h.long(), w.long(), u[:, 0] < mirror)


def _central(size: tuple[int, int], ratio: tuple[float, float]) -> tuple[float, float]:
    """Height and width of the largest crop whose ratio is in ``ratio``."""
    height, width = size
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def whole(n: int, size: tuple[int, int], device: torch.device | str = "cpu") -> Crops:
    """``n`` crops that are the whole image."""
    numbers = (0, 0, *size)
    return Crops(*(torch.full((n,), number, device=device) for number in numbers), torch.zeros(n, device=device) > 0)


def strip_orders(keys: Tensor, strips: int) -> Tensor:
    """Random orders of the strips of an image's two sides, int64 [N, 2, strips], one of each a key."""
    return rng.permutation(rng.lanes(keys, 2), strips)


def crop_resize(images: Tensor, crops: Crops, size: tuple[int, int], strips: Tensor | None = None) -> Tensor:
    """Crop every image, and resize the crop to ``size``, bilinear with ``antialias=True``, as
    ``F.interpolate(..., align_corners=False)`` of the crop alone does.

    Args:
        images: [N, C, H, W], floating point; differentiable.
        crops: of each.
        size: (h, w) of the results.
        strips: int64 [N, 2, f], orders of :func:`strip_orders`: rows, then columns, of which the f strips of an image
            (of ``side // f`` pixels, the last with the rest) are shuffled before it is cropped; None: they stay.

    Returns:
        [N, C, h, w]. Cost: two matrix products an image, 2 h W (H + w) C flops; h H + w W numbers of matrices.
        Deterministic; an image depends on itself alone, to rounding.
    """
    height, width = images.shape[-2:]
    rows = _weights(crops.top, crops.height, height, size[0], images.dtype)
    columns = _weights(crops.left, crops.width, width, size[1], images.dtype)
    columns = torch.where(crops.mirrored[:, None, None], columns.flip(1), columns)
    if strips is not None:
        rows, columns = (
            matrix.gather(2, _places(order, side)[:, None].expand_as(matrix))
            for matrix, order, side in ((rows, strips[:, 0], height), (columns, strips[:, 1], width))
        )
    return rows[:, None] @ images @ columns.mT[:, None]


def _weights(first: Tensor, length: Tensor, side: int, out: int, dtype: torch.dtype) -> Tensor:
    """[N, out, side], of each pixel of a crop's side in each of the result's: a triangle as wide as one of the
    result's pixels, and never narrower than one of the crop's."""
    scale = (length.double() / out)[:, None, None]
    at = torch.arange(side, device=first.device, dtype=torch.float64) + 0.5
    centres = first[:, None, None] + (torch.arange(out, device=first.device)[:, None] + 0.5) * scale
    weights = (1 - (at - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    inside = (at > first[:, None, None]) & (at < (first + length)[:, None, None])
    weights = weights * inside
    return (weights / weights.sum(2, keepdim=True)).to(dtype)


def _places(order: Tensor, side: int) -> Tensor:
    """int64 [N, side]: where each pixel of a side comes to lie when its strips are put in these orders, [N, f]."""
    strips = order.shape[1]
    of_pixel = (torch.arange(side, device=order.device) // (side // strips)).clamp(max=strips - 1)
    rank = order.argsort(1)  # of each strip, where it comes to lie
    return (rank[:, of_pixel] * side + torch.arange(side, device=order.device)).argsort(1).argsort(1)
