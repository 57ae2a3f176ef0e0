"""RISE: which pixels a network's probability for a class rests on, by hiding random parts of the image."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd import models
from fastdd.core import rng

# Images of a forward pass: their feature maps stay in the cache of a core.
_BATCH = 256
_KEPT = 0.5
# Cells a side of a mask: published at 224 pixels, and for images of 32.
_CELLS, _FEW_CELLS, _SMALL = 7, 4, 64


@dataclass(frozen=True)
class Saliency:
    """What RISE finds of N images.

    Attributes:
        raw: float64 [N, H, W], the published map: the class's probability where a pixel is seen, times how often it is.
            It has a floor, the mean probability, wherever a pixel does not matter.
        excess: float64 [N, H, W], probability where the pixel is seen less the mean over all masks: the map without its
            floor, 0 where a pixel does not matter, below where seeing it speaks against the class.
        probability: float64 [N], of the class, mean over masks.
        masks: M.
    """

    raw: np.ndarray
    excess: np.ndarray
    probability: np.ndarray
    masks: int


def cells(size: tuple[int, int]) -> int:
    """Cells a side of a mask that are usual for images of this size: 7, as published, or 4 below 64 pixels."""
    return _FEW_CELLS if max(size) < _SMALL else _CELLS


def check_cells(size: tuple[int, int], side: int | None) -> None:
    """ValueError unless a mask for images of this size can have so many cells a side; None: as many as are usual."""
    if not 2 <= (cells(size) if side is None else side) <= min(size):
        raise ValueError(
            f"a mask of images of {size[0]}x{size[1]} pixels has 2 to {min(size)} cells a side, not {side}"
        )


def rise_masks(count: int, size: tuple[int, int], side: int, key: int) -> Tensor:
    """float32 [count, H, W], 0 hides and 1 shows: random grids, enlarged and shifted (RISE, section 3.2).

    A grid of ``side`` x ``side`` cells, each 1 with probability 0.5, is enlarged to side + 1 cells of ceil(H / side)
    pixels, bilinearly, of which a window of H x W at a random place within the first cell is the mask. A mask is a
    function of ``key`` and its number alone.

    Raises:
        ValueError: more cells than pixels, or fewer than 2.
    """
    check_cells(size, side)
    high, wide = (math.ceil(length / side) for length in size)
    drawn = rng.uniform(rng.lanes(key, count), side * side + 2)
    grids = (drawn[:, :-2] < _KEPT).float().view(count, 1, side, side)
    large = F.interpolate(grids, (high * (side + 1), wide * (side + 1)), mode="bilinear", align_corners=False)[:, 0]
    top, left = (drawn[:, -2] * high).long(), (drawn[:, -1] * wide).long()
    rows = top[:, None] + torch.arange(size[0])
    columns = left[:, None] + torch.arange(size[1])
    return large[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


@torch.no_grad()
def rise(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    masks: int = 2000,
    side: int | None = None,
    key: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Saliency:
    """RISE (Petsiuk, Das and Saenko, BMVC 2018), of all images with the same masks:

        S(x) = 1 / (0.5 M) sum over masks m of softmax(net(image * m))[label] m(x)      (its equation 6)

    A hidden pixel has the mean colour of the data set, 0 after normalisation, as in the published code.

    Args:
        net: logits of normalised images; it is left in evaluation mode. A :class:`fastdd.models.Network` runs on its
            prepared filters.
        images: [N, C, H, W], normalised, on the network's device.
        labels: int64 [N], the class whose probability is explained.
        masks: M; published 4,000 to 8,000.
        side: cells a side of a mask; None: :func:`cells`.
        key: of the masks.
        progress: called with (forward passes done, all).

    Raises:
        ValueError: no masks, or cells that do not fit the images.

    Cost: N M forward passes, 256 at a time. Deterministic on a machine and thread count.
    """
    if masks < 1:
        raise ValueError(f"masks must be at least 1, not {masks}")
    size = tuple(images.shape[-2:])
    side = cells(size) if side is None else side
    all_masks = rise_masks(masks, size, side, key).to(images.device)
    logits, flat = _logits(net), all_masks.flatten(1).double()
    seen = flat.sum(0)
    probabilities = torch.empty(len(images), masks, dtype=torch.float64, device=images.device)
    with models.exact_convolutions():
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            for start in range(0, masks, _BATCH):
                hidden = image * all_masks[start : start + _BATCH, None]
                found = logits(hidden).softmax(1)[:, label]
                probabilities[number, start : start + _BATCH] = found.double()
            if progress is not None:
                progress((number + 1) * masks, len(images) * masks)
    sums, mean = probabilities @ flat, probabilities.mean(1)
    raw = sums / (_KEPT * masks)
    excess = torch.where(seen > 0, sums / seen - mean[:, None], 0)
    found = (each.view(-1, *size).cpu().numpy() for each in (raw, excess))
    return Saliency(*found, mean.cpu().numpy(), masks)


@torch.no_grad()
def predicted(net: nn.Module, images: Tensor) -> Tensor:
    """The class that a network takes each image for, int64 [N]: unmasked, in evaluation mode."""
    with models.exact_convolutions():
        return _logits(net)(images).argmax(1)


def _logits(net: nn.Module) -> Callable[[Tensor], Tensor]:
    net.eval()
    if not isinstance(net, models.Network):
        return net
    embed, head = net.embedder(), getattr(net, net.head)
    return lambda images: head(embed(images))


def share_inside(excess: np.ndarray, inside: np.ndarray, *, at_least: float = 0.5) -> list[float | None]:
    """Which share of an image's saliency is inside a region: of ``excess`` where it reaches a part of its maximum.

    A mask's cells blur the map by about half a cell, so that all that is above 0 reaches beyond what matters; down to
    half of the maximum (``at_least``) it does not. 0 counts all that is above 0, as energy-based pointing does
    (Score-CAM, Wang et al. 2020).

    Args:
        excess: [N, H, W], of :class:`Saliency`.
        inside: bool [N, H, W].
        at_least: 0 to below 1.

    Returns:
        0..1 an image; None where nothing speaks for the class.

    >>> share_inside(np.array([[[4.0, 3.0, 1.0, -1.0]]]), np.array([[[True, False, False, False]]]))
    [0.5714285714285714]
    """
    shares: list[float | None] = []
    for values, region in zip(excess, inside, strict=True):
        counted = np.where((values > 0) & (values >= at_least * values.max()), values, 0)
        total = counted.sum()
        shares.append(float(counted[region].sum() / total) if total > 0 else None)
    return shares
