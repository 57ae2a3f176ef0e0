"""CutMix (Yun et al., ICCV 2019), as IDC trains networks: a rectangle of every image of a batch is another image's."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastdd.core import rng


@dataclass(frozen=True)
class CutMix:
    """How a batch is mixed.

    Attributes:
        order: int64 [N]: into image i a rectangle of image ``order[i]`` is pasted.
        rectangle: its first row and column, and those after its last: top, left, bottom, right. Numbers, or scalars
            where the images are.
        kept: what is left of image i, as a part of its area: the weight of its own label; 1 - kept is the other's.
            Likewise.
    """

    order: Tensor
    rectangle: tuple[int | Tensor, int | Tensor, int | Tensor, int | Tensor]
    kept: float | Tensor

    def paste(self, images: Tensor) -> Tensor:
        """The images [N, C, H, W], changed in place if the rectangle is numbers.

        >>> images = torch.arange(2.0).view(2, 1, 1, 1).repeat(1, 1, 2, 2)
        >>> CutMix(torch.tensor([1, 0]), (0, 1, 2, 2), 0.5).paste(images)[:, 0].tolist()
        [[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]
        """
        top, left, bottom, right = self.rectangle
        if isinstance(top, Tensor):
            row, column = (torch.arange(side, device=images.device) for side in images.shape[2:])
            inside = ((row >= top) & (row < bottom))[:, None] & ((column >= left) & (column < right))
            return torch.where(inside, images[self.order], images)
        images[:, :, top:bottom, left:right] = images[self.order, :, top:bottom, left:right]
        return images


def cutmix_rectangle(size: tuple[int, int], part: float, row: int, column: int) -> tuple[int, int, int, int]:
    """CutMix's rectangle, with sides of ``sqrt(part)`` of the image's, rounded down to twice a whole number, about the
    pixel (row, column), and cut off at the borders.

    Args:
        size: height and width of the images.
        part: of their area, 0 to 1: 1 - lambda in the paper.
        row, column: its centre.

    Returns:
        First row and column, and those after the last: top, left, bottom, right.

    >>> cutmix_rectangle((32, 32), 0.25, 4, 16)
    (0, 8, 12, 24)
    """
    ends = []
    for side, centre in zip(size, (row, column), strict=True):
        half = int(side * part**0.5) // 2
        ends.append((max(centre - half, 0), min(centre + half, side)))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


class Mixing(NamedTuple):
    """What a key says of a batch: numbers of :class:`CutMix`, those of an empty rectangle where it is not mixed.

    Attributes:
        top, left, bottom, right, kept: as there.
        order: the key of its permutation.
    """

    top: int
    left: int
    bottom: int
    right: int
    kept: float
    order: int


def mixing(key: int, size: tuple[int, int], probability: float) -> Mixing:
    """What :func:`cutmix` decides by a key, whose arguments these are.

    >>> mixing(7, (32, 32), 0.0)[:5]
    (0, 0, 0, 0, 1.0)
    """
    mixed, kept, row, column = rng.uniform_array(key, 4).tolist()
    rectangle = 0, 0, 0, 0
    if mixed < probability:
        rectangle = cutmix_rectangle(size, 1 - kept, int(row * size[0]), int(column * size[1]))
    top, left, bottom, right = rectangle
    area = (bottom - top) * (right - left) / (size[0] * size[1])
    return Mixing(*rectangle, 1 - area, rng.key(key, "order"))


def cutmix(
    key: int, n: int, size: tuple[int, int], probability: float, device: torch.device | str = "cpu"
) -> CutMix | None:
    """Whether a batch is mixed, with a probability, and how: lambda is uniform on [0, 1) (its Beta's parameter is 1, as
    published), the centre any pixel, the order of the others any permutation.

    Args:
        key: from :mod:`fastdd.core.rng`; the draw is a function of it, made on the host: nothing waits for a GPU.
        n: images.
        size: their height and width.
        probability: 0 to 1.
        device: of the order.

    Returns:
        How to mix it; None where it is not mixed.
    """
    if float(rng.uniform_array(key, 1)[0]) >= probability:
        return None
    *rectangle, kept, order = mixing(key, size, probability)
    return CutMix(rng.permutation(order, n, device), tuple(rectangle), kept)


@dataclass(frozen=True)
class CutMixes:
    """How batches of several networks are mixed, each by a :class:`CutMix` of its own.

    Attributes:
        order: int64 [K, N].
        rectangles: int64 [K, 4], on the same device: top, left, bottom, right; zeros for a batch that is not mixed.
    """

    order: Tensor
    rectangles: Tensor

    def paste(self, images: Tensor) -> Tensor:
        """Of images [K, N, C, H, W], those that they are mixed to.

        >>> images = torch.arange(4.0).view(2, 2, 1, 1, 1).repeat(1, 1, 1, 1, 2)
        >>> mixes = CutMixes(torch.tensor([[1, 0], [1, 0]]), torch.tensor([[0, 1, 1, 2], [0, 0, 0, 0]]))
        >>> mixes.paste(images).flatten(2).tolist()
        [[[0.0, 1.0], [1.0, 0.0]], [[2.0, 2.0], [3.0, 3.0]]]
        """
        top, left, bottom, right = self.rectangles.view(-1, 4, 1, 1, 1, 1).unbind(1)
        rows, columns = (torch.arange(side, device=images.device) for side in images.shape[-2:])
        inside = ((rows >= top) & (rows < bottom)).mT & (columns >= left) & (columns < right)
        return torch.where(inside, images[self._networks(), self.order], images)

    def kept(self, size: tuple[int, int]) -> Tensor:
        """float64 [K, 1], what is left of a batch's images of this size."""
        top, left, bottom, right = self.rectangles.unbind(1)
        return (1 - ((bottom - top) * (right - left)).double() / (size[0] * size[1]))[:, None]

    def of_others(self, values: Tensor) -> Tensor:
        """Of values [K, N, *], those of the images that are pasted."""
        return values[self._networks(), self.order]

    def _networks(self) -> Tensor:
        return torch.arange(len(self.order), device=self.order.device)[:, None]
