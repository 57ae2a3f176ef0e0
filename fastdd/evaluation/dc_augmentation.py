"""DC's augmentation of the networks that evaluate a set: one operation an image, with numbers of the image's own.

DatasetCondensation trains with it where its sets of method DC are MNIST's or the network has batch norms (its
``get_daparam`` and ``augment``); siamese augmentation (:mod:`fastdd.ops.dsa`) is a later one, and the other methods'.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # which imports its parts where they are first used
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.core import rng

DC_OPS = ("crop", "scale", "rotate", "noise")


@dataclass(frozen=True)
class DcAugmentation:
    """Operations and their ranges; as published by default.

    Attributes:
        strategy: names joined by underscores; every image gets one of them, drawn. One that is not in :data:`DC_OPS`
            does nothing.
        crop: pixels. The image is shifted by -crop to crop - 1 down and to the right; the channel's mean comes in.
        scale: height and width are each resized to a factor of 1 +- scale (nearest), about the centre; zeros come in.
        rotate: degrees. The image is turned by a whole number of -rotate to rotate - 1 (cubic splines); the mean of the
            channels' means comes in.
        noise: times a standard normal is added.
    """

    strategy: str = "none"
    crop: int = 4
    scale: float = 0.2
    rotate: int = 45
    noise: float = 0.001

    @property
    def names(self) -> list[str]:
        return self.strategy.split("_")


def dc_strategy(dataset: str, arch: str) -> str:
    """What DatasetCondensation augments with when it evaluates a set of method DC.

    Args:
        dataset: our name of it; coloured MNIST is another data set.
        arch: the evaluated network's canonical name.

    >>> dc_strategy("mnist", "ConvNet"), dc_strategy("mnist", "ConvNetBN"), dc_strategy("fashion-mnist", "ConvNet")
    ('crop_scale_rotate', 'crop_noise', 'none')
    """
    if arch == "ConvNetBN":
        return "crop_noise"
    return "crop_scale_rotate" if dataset == "mnist" else "none"


def draw(n: int, settings: DcAugmentation, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Operation of each of n images [n], and its two numbers [n, 2], as functions of the key: pixels down and to the
    right, from 0, of crop; factors of the height and the width; degrees."""
    u = rng.uniform_array(key, 3 * n).astype(np.float64).reshape(n, 3)
    chosen = np.array(settings.names)[(u[:, 0] * len(settings.names)).astype(int)]
    numbers = 1 + (2 * u[:, 1:] - 1) * settings.scale
    crop, rotate = settings.crop, settings.rotate
    for name, whole in (("crop", np.floor(u * (2 * crop))), ("rotate", np.floor(u * (2 * rotate)) - rotate)):
        numbers = np.where((chosen == name)[:, None], whole[:, 1:], numbers)
    return chosen, numbers


def _moved(x: Tensor, y: np.ndarray, u: np.ndarray, fill: Tensor) -> Tensor:
    """Result pixel (v, w) of image i is x[i, :, y[i, v], u[i, w]], or ``fill`` where one of them is -1."""
    y, u = torch.from_numpy(y).to(x.device), torch.from_numpy(u).to(x.device)
    index = y.clamp(min=0)[:, :, None] * x.shape[3] + u.clamp(min=0)[:, None]
    moved = x.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return torch.where(((y >= 0)[:, :, None] & (u >= 0)[:, None])[:, None], moved, fill)


def _shifted(side: int, by: np.ndarray) -> np.ndarray:
    """Source of every pixel of a side that is moved by ``by`` [N] pixels; -1 outside."""
    source = np.arange(side) + by.astype(np.int64)[:, None]
    return np.where((source >= 0) & (source < side), source, -1)


@lru_cache(maxsize=4096)
def _resized(side: int, size: int, largest: int) -> np.ndarray:
    """Source of every pixel of a side that is resized to ``size`` (nearest) on a canvas of ``largest``; -1 outside."""
    canvas = np.full(max(largest, size), -1)
    first = (largest - size) // 2
    canvas[first : first + size] = F.interpolate(torch.arange(float(side)).view(1, 1, side), size).view(-1).numpy()
    first = (largest - side) // 2
    return canvas[first : first + side]


@lru_cache(maxsize=8)
def _spline_filter(side: int) -> np.ndarray:
    """The matrix that turns pixels into coefficients of cubic B-splines, [side, side]."""
    return scipy.ndimage.spline_filter1d(np.eye(side), order=3, axis=0, mode="mirror")


@lru_cache(maxsize=512)
def _rotation(height: int, width: int, degrees: int) -> "tuple[scipy.sparse.csr_array, np.ndarray]":
    """``scipy.ndimage.rotate``, cropped to the image's size, as a sparse matrix that takes spline coefficients; and
    which pixels come from outside."""
    cos, sin = scipy.special.cosdg(degrees), scipy.special.sindg(degrees)
    matrix = np.array([[cos, sin], [-sin, cos]])
    size = (np.ptp(matrix @ [[0, 0, height, height], [0, width, 0, width]], axis=1) + 0.5).astype(int)
    first = [int((big - side) / 2) for big, side in zip(size, (height, width), strict=True)]
    offset = (np.array([height, width]) - 1) / 2 - matrix @ ((size - 1) / 2) + matrix @ first
    ones = np.ones((height, width))
    # Which side of the border a pixel falls on is a matter of rounding, so scipy is asked.
    outside = scipy.ndimage.affine_transform(ones, matrix, offset, order=0, mode="constant", cval=2.0) == 2
    where = np.indices((height, width)).reshape(2, -1)
    columns, weights = np.zeros((1, height * width), np.int64), np.ones((1, height * width))
    for side, at in zip((height, width), matrix @ where + offset[:, None], strict=True):
        at = at.clip(0, side - 1)
        start = np.floor(at)
        taps = (start + np.arange(-1, 3)[:, None]).astype(np.int64)
        t = np.abs(at - taps)
        spline = np.where(t < 1, 2 / 3 - t**2 * (1 - t / 2), np.clip(2 - t, 0, None) ** 3 / 6)
        # Coefficients are mirrored about the outermost pixels.
        taps = (side - 1) - np.abs((side - 1) - taps % max(2 * side - 2, 1))
        columns = (columns[:, None] * side + taps).reshape(-1, height * width)
        weights = (weights[:, None] * spline).reshape(-1, height * width)
    weights[:, outside.ravel()] = 0
    rows = np.broadcast_to(np.arange(height * width), columns.shape)
    shape = (height * width, height * width)
    return scipy.sparse.csr_array((weights.ravel(), (rows.ravel(), columns.ravel())), shape), outside.ravel()


def _cropped(x: Tensor, down: np.ndarray, right: np.ndarray, most: int, fill: Tensor) -> Tensor:
    y, u = _shifted(x.shape[2], down - most), _shifted(x.shape[3], right - most)
    return _moved(x, y, u, fill[:, None, None].to(x.dtype))


def _scaled(x: Tensor, down: np.ndarray, right: np.ndarray) -> Tensor:
    height, width = x.shape[2:]
    y, u = [], []
    for a, b in zip(down.tolist(), right.tolist(), strict=True):
        # As published, both sides are resized to factors of the height, on a square canvas.
        rows, columns = int(a * height), int(b * height)
        largest = max(rows, columns, height, width)
        y.append(_resized(height, rows, largest))
        u.append(_resized(width, columns, largest))
    return _moved(x, np.stack(y), np.stack(u), x.new_zeros(()))


def _rotated(x: Tensor, degrees: np.ndarray, fill: float) -> Tensor:
    pixels = x.detach().cpu().double().numpy()
    n, channels, height, width = pixels.shape
    splines = (_spline_filter(height) @ pixels @ _spline_filter(width).T).reshape(n, channels, -1)
    out = np.empty_like(splines)
    for image, coefficients, angle in zip(out, splines, degrees.astype(int).tolist(), strict=True):
        rotation, outside = _rotation(height, width, angle)
        image[...] = (rotation @ coefficients.T).T
        image[:, outside] = fill
    return torch.from_numpy(out.reshape(pixels.shape)).to(x.dtype).to(x.device)


def augment(
    images: Tensor,
    settings: DcAugmentation,
    chosen: np.ndarray,
    numbers: np.ndarray,
    normal: Callable[[Tensor], Tensor],
) -> None:
    """Change every image in place by its operation.

    Args:
        images: [N, C, H, W], floating point, without gradients. What comes in at crop and rotate are means over all N.
        settings: the ranges that the numbers were drawn for.
        chosen, numbers: as :func:`draw` gives them.
        normal: standard normal numbers of the shape of some images, for their noise.

    Cost: rotations are computed on the CPU, in float64; the rest on the images' device.
    """
    mean = images.detach().mean((0, 2, 3))
    for name, change in (
        ("crop", lambda x, down, right: _cropped(x, down, right, settings.crop, mean)),
        ("scale", _scaled),
        ("rotate", lambda x, degrees, _: _rotated(x, degrees, mean.double().mean().item())),
        ("noise", lambda x, *_: (x + settings.noise * normal(x)).to(x.dtype)),
    ):
        which = np.flatnonzero(chosen == name)
        if len(which):
            rows = torch.from_numpy(which).to(images.device)
            images.index_copy_(0, rows, change(images.index_select(0, rows), *numbers[which].T))


def dc_augment(settings: DcAugmentation, images: Tensor, key: tuple) -> Tensor:
    """The images [N, C, H, W], changed in place; draws are functions of ``key``: run seed, stream and counters.

    >>> images = torch.ones(2, 1, 4, 4)
    >>> dc_augment(DcAugmentation("noise"), images, (0, "docs")).sub(1).abs().max() < 0.01
    tensor(True)
    """
    seed, stream, *counters = key

    def normal(x: Tensor) -> Tensor:
        return rng.normal(rng.key(seed, f"{stream}-dc-noise", *counters), x.numel(), x.device).view_as(x)

    drawn = draw(len(images), settings, rng.key(seed, f"{stream}-dc-augment", *counters))
    augment(images, settings, *drawn, normal)
    return images
