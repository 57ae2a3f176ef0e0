"""Differentiable Siamese augmentation, and the older one of DC's evaluation, as DatasetCondensation, FairDD, MTT and
TESLA have them."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.ndimage
import scipy.sparse
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import rng as keys
from fastdd.compat import _passes, _random
from fastdd.compat._passes import KeyedDraws, Passes


class ParamDiffAug:
    """Ranges of the augmentation, to be changed at will; :func:`DiffAugment` adds ``latestseed``, ``Siamese`` and
    ``batchmode``.

    ``aug_mode`` is ``S`` (one operation of the strategy, drawn) or ``M`` (all, in order).
    """

    def __init__(self):
        self.aug_mode = "S"
        self.prob_flip = 0.5
        self.ratio_scale = 1.2
        self.ratio_rotate = 15.0
        self.ratio_crop_pad = 0.125
        self.ratio_cutout = 0.5
        self.ratio_noise = 0.05
        self.brightness = 1.0
        self.saturation = 2.0
        self.contrast = 0.5


def set_seed_DiffAug(param: ParamDiffAug) -> None:
    """Seed torch's global generators with ``param.latestseed`` and count it up; nothing if it is -1."""
    if param.latestseed != -1:
        seed_torch(param.latestseed)
        param.latestseed += 1


def seed_torch(seed: int) -> None:
    """``torch.manual_seed``; without a GPU, without its list of calls to be made once there is one, which takes longer
    than the augmentation."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


class _PublishedDraws:
    """Torch's global CPU generator, reseeded before every draw. A Siamese batch draws for all its images and uses the
    first's, so the generator is left as by the published code."""

    def __init__(self, param: Any, images: int, rows: int):
        self._param, self._images, self._rows = param, images, rows

    def uniform(self, dtype: torch.dtype | None = None) -> np.ndarray:
        set_seed_DiffAug(self._param)
        drawn = torch.rand(self._images, dtype=dtype or torch.float32)
        return (drawn if drawn.dtype in (torch.float32, torch.float64) else drawn.float()).numpy()[: self._rows]

    def integers(self, low: int, high: int) -> np.ndarray:
        set_seed_DiffAug(self._param)
        return torch.randint(low, high, (self._images,)).numpy()[: self._rows]

    def choose(self, count: int) -> int:
        set_seed_DiffAug(self._param)
        return torch.randint(0, count, (1,)).item()


def _begin(x: Tensor, param: Any, rng: str | None, stream: str, align_corners: bool):
    """Passes over x and where its numbers come from, in the state that ``param`` is in."""
    rows = 1 if getattr(param, "Siamese", False) or getattr(param, "batchmode", False) else x.shape[0]
    passes = Passes(x, rows, align_corners)
    if _random.mode(rng) == "legacy":
        return passes, _PublishedDraws(param, x.shape[0], rows)
    seed = getattr(param, "latestseed", -1)
    if seed == -1:
        return passes, KeyedDraws(_random.next_key(stream), rows)
    param.latestseed += 1
    return passes, KeyedDraws(keys.key(seed, f"compat-{stream}"), rows)


def _alone(operation: Callable, x: Tensor, param: Any, rng: str | None, align_corners: bool = False) -> Tensor:
    passes, draws = _begin(x, param, rng, operation.__name__, align_corners)
    operation(passes, draws, param)
    return passes.images()


def rand_scale(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Sample at coordinates times factors of [1 / ratio_scale, ratio_scale), one for each direction."""
    return _alone(_passes.scale, x, param, rng)


def rand_rotate(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Turn by up to ``ratio_rotate`` degrees either way."""
    return _alone(_passes.rotate, x, param, rng)


def rand_flip(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Mirror left and right, with probability ``prob_flip``."""
    return _alone(_passes.flip, x, param, rng)


def rand_brightness(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Add up to half of ``brightness``, or take it away."""
    return _alone(_passes.brightness, x, param, rng)


def rand_saturation(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Multiply the distance to a pixel's mean over the channels by [0, ``saturation``)."""
    return _alone(_passes.saturation, x, param, rng)


def rand_contrast(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Multiply the distance to the image's mean by [``contrast``, 1 + ``contrast``)."""
    return _alone(_passes.contrast, x, param, rng)


def rand_crop(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Shift by whole pixels, up to ``ratio_crop_pad`` of each side; zeros come in."""
    return _alone(_passes.crop, x, param, rng)


def rand_cutout(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Zeros in a rectangle with ``ratio_cutout`` of each side, its centre anywhere."""
    return _alone(_passes.cutout, x, param, rng)


def rand_scale_mtt(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """:func:`rand_scale` with ``align_corners=True``, as MTT has it: the same for square images."""
    return _alone(_passes.scale, x, param, rng, align_corners=True)


def rand_rotate_mtt(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """:func:`rand_rotate` with ``align_corners=True``, as MTT has it: the same for square images."""
    return _alone(_passes.rotate, x, param, rng, align_corners=True)


AUGMENT_FNS = {
    "color": [rand_brightness, rand_saturation, rand_contrast],
    "crop": [rand_crop],
    "cutout": [rand_cutout],
    "flip": [rand_flip],
    "scale": [rand_scale],
    "rotate": [rand_rotate],
}
AUGMENT_FNS_MTT = {**AUGMENT_FNS, "scale": [rand_scale_mtt], "rotate": [rand_rotate_mtt]}

# Functions of AUGMENT_FNS that can share a pass; another one that a script puts there is called by itself.
_OPERATIONS = {
    rand_scale: _passes.scale,
    rand_scale_mtt: _passes.scale,
    rand_rotate: _passes.rotate,
    rand_rotate_mtt: _passes.rotate,
    rand_flip: _passes.flip,
    rand_brightness: _passes.brightness,
    rand_saturation: _passes.saturation,
    rand_contrast: _passes.contrast,
    rand_crop: _passes.crop,
    rand_cutout: _passes.cutout,
}


def _diff_augment(
    x: Tensor, strategy: str, seed: int, param: Any, rng: str | None, functions: dict, align_corners: bool
) -> Tensor:
    if not strategy or strategy in ("None", "none"):
        return x
    param = ParamDiffAug() if param is None else param
    names = strategy.split("_")
    for name in names:
        if name not in functions:
            raise ValueError(f"strategy {strategy!r}: {name!r} is not one of {', '.join(functions)}")
    if param.aug_mode not in ("M", "S"):
        raise ValueError(f"param.aug_mode must be 'S' (one operation) or 'M' (all), not {param.aug_mode!r}")
    param.Siamese = param.batchmode = seed != -1
    param.latestseed = seed
    passes, draws = _begin(x, param, rng, "DiffAugment", align_corners)
    for name in names if param.aug_mode == "M" else [names[draws.choose(len(names))]]:
        for function in functions[name]:
            if function in _OPERATIONS:
                _OPERATIONS[function](passes, draws, param)
            else:
                passes.through(lambda images, function=function: function(images, param))
    return passes.images()


def DiffAugment(
    x: Tensor, strategy: str = "", seed: int = -1, param: ParamDiffAug | None = None, *, rng: str | None = None
) -> Tensor:
    """Augment a batch, differentiably; with a seed the same transform for every image, and for every batch (Siamese).

    Args:
        x: normalised images [N, C, H, W], float32, float64, bfloat16 or float16.
        strategy: operations joined by underscores, of those in ``AUGMENT_FNS``; ``none``, ``None`` and the empty string
            return x itself.
        seed: -1 for other parameters for every image.
        param: the ranges; ``Siamese``, ``batchmode`` and ``latestseed`` are set on it. None: the published ones.
        rng: ``legacy`` draws what the published code draws for a seed, bit for bit if x is on a CPU (numbers for a GPU
            are drawn on the CPU too, so there they differ from the published ones), and leaves torch's global generator
            reseeded as it does. ``fast`` takes counter-based keys: with a seed, a function of the seed alone. None: as
            :func:`fastdd.compat.use_rng` says.

    Returns:
        Images of x's shape and dtype, contiguous.

    Raises:
        ValueError: an unknown operation, an unknown ``param.aug_mode``, or x is no batch of floating-point images.

    Cost: one read and one write of the images (mode ``S``; two to four of ``M``); the numbers are drawn on the host.

    >>> real, synthetic = torch.rand(8, 3, 16, 16), torch.rand(2, 3, 16, 16)
    >>> a, b = (DiffAugment(t, "flip_scale_rotate", seed=7, param=ParamDiffAug()) for t in (real, synthetic))
    >>> torch.equal(DiffAugment(real[:1], "flip_scale_rotate", seed=7), a[:1])
    True
    """
    return _diff_augment(x, strategy, seed, param, rng, AUGMENT_FNS, align_corners=False)


def DiffAugment_mtt(
    x: Tensor, strategy: str = "", seed: int = -1, param: ParamDiffAug | None = None, *, rng: str | None = None
) -> Tensor:
    """:func:`DiffAugment` as MTT and TESLA have it, with ``align_corners=True``: the same for square images."""
    return _diff_augment(x, strategy, seed, param, rng, AUGMENT_FNS_MTT, align_corners=True)


def _drawn_as_published(n: int, names: list[str], settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """Operation of every image [n] and its two numbers [n, 2], from numpy's global generator in the published order."""
    scale, crop, rotate = settings["scale"], settings["crop"], settings["rotate"]
    chosen, numbers = [], np.zeros((n, 2))
    for i in range(n):
        name = names[np.random.permutation(len(names))[0]]
        if name == "crop":
            numbers[i] = np.random.permutation(crop * 2)[0], np.random.permutation(crop * 2)[0]
        elif name == "scale":
            numbers[i] = np.random.uniform(1 - scale, 1 + scale), np.random.uniform(1 - scale, 1 + scale)
        elif name == "rotate":
            numbers[i, 0] = np.random.randint(-rotate, rotate)
        chosen.append(name)
    return np.array(chosen), numbers


def _drawn_from_key(n: int, names: list[str], settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """The same, of the same distribution, from the next key."""
    scale, crop, rotate = settings["scale"], settings["crop"], settings["rotate"]
    u = keys.uniform_array(_random.next_key("augment"), 3 * n).astype(np.float64).reshape(n, 3)
    chosen = np.array(names)[(u[:, 0] * len(names)).astype(int)]
    numbers = 1 + (2 * u[:, 1:] - 1) * scale
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
def _rotation(height: int, width: int, degrees: int) -> tuple[scipy.sparse.csr_array, np.ndarray]:
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


def augment(images: Tensor, dc_aug_param: dict | None, device: Any, *, rng: str | None = None) -> Tensor:
    """DC's augmentation for evaluation: for every image one operation of the strategy; ``images`` are changed in place.

    crop shifts by up to ``crop`` pixels (the channels' means come in), scale resizes both sides by factors of
    1 +- ``scale`` (nearest), rotate turns by whole degrees up to ``rotate`` (cubic splines, the mean comes in; computed
    on the CPU), noise adds ``noise`` times a standard normal. Unknown operations do nothing.

    Args:
        images: [N, C, H, W], floating point.
        dc_aug_param: of ``get_daparam``; None or the strategy ``none`` change nothing.
        device: unused, as images stay where they are; part of the published signature.
        rng: ``legacy`` draws from numpy's global generator (noise: from torch's) what the published code draws, bit for
            bit on CPUs; ``fast`` from counter-based keys, with the same distribution. None: as
            :func:`fastdd.compat.use_rng` says.

    Returns:
        ``images``.
    """
    if dc_aug_param is None or dc_aug_param["strategy"] == "none" or not images.shape[0]:
        return images
    legacy = _random.mode(rng) == "legacy"
    mean = images.detach().mean((0, 2, 3))
    draw = _drawn_as_published if legacy else _drawn_from_key
    chosen, numbers = draw(len(images), dc_aug_param["strategy"].split("_"), dc_aug_param)

    def noisy(x: Tensor, *_) -> Tensor:
        if legacy:
            drawn = torch.stack([torch.randn(x.shape[1:], device=x.device) for _ in x])
        else:
            drawn = keys.normal(_random.next_key("augment-noise"), x.numel(), x.device).view_as(x)
        return (x + dc_aug_param["noise"] * drawn).to(x.dtype)

    for name, change in (
        ("crop", lambda x, down, right: _cropped(x, down, right, dc_aug_param["crop"], mean)),
        ("scale", _scaled),
        ("rotate", lambda x, degrees, _: _rotated(x, degrees, mean.double().mean().item())),
        ("noise", noisy),
    ):
        which = np.flatnonzero(chosen == name)
        if len(which):
            rows = torch.from_numpy(which).to(images.device)
            images.index_copy_(0, rows, change(images.index_select(0, rows), *numbers[which].T))
    return images
