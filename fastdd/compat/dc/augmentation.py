"""Differentiable Siamese augmentation, and the older one of DC's evaluation."""

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastdd.compat.shared import passes, randomness
from fastdd.compat.shared.passes import KeyedDraws, Passes
from fastdd.core import rng as keys

if TYPE_CHECKING:
    from fastdd.evaluation.dc_augmentation import DcAugmentation

__all__ = [
    "AUGMENT_FNS",
    "DiffAugment",
    "ParamDiffAug",
    "augment",
    "rand_brightness",
    "rand_contrast",
    "rand_crop",
    "rand_cutout",
    "rand_flip",
    "rand_rotate",
    "rand_saturation",
    "rand_scale",
    "set_seed_DiffAug",
]


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
        randomness.seed_torch(param.latestseed)
        param.latestseed += 1


class _PublishedDraws:
    """Torch's global CPU generator, reseeded before every draw. A Siamese batch draws for all its images and uses the
    first's, so the generator is left as by the published code."""

    def __init__(self, param: Any, images: int, rows: int):
        self._param, self._images, self._rows = param, images, rows

    def uniform(self, dtype: torch.dtype | None = None) -> np.ndarray:
        set_seed_DiffAug(self._param)
        drawn = torch.rand(self._images, dtype=dtype or torch.get_default_dtype())
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
    pending = Passes(x, rows, align_corners)
    if randomness.mode(rng) == "legacy":
        return pending, _PublishedDraws(param, x.shape[0], rows)
    seed = getattr(param, "latestseed", -1)
    if seed == -1:
        return pending, KeyedDraws(randomness.next_key(stream), rows)
    param.latestseed += 1
    return pending, KeyedDraws(keys.key(seed, f"compat-{stream}"), rows)


def apply(operation: Callable, x: Tensor, param: Any, rng: str | None, align_corners: bool = False) -> Tensor:
    """One operation of :mod:`fastdd.compat.shared.passes`, in a pass by itself."""
    pending, draws = _begin(x, param, rng, operation.__name__, align_corners)
    operation(pending, draws, param)
    return pending.images()


def rand_scale(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Sample at coordinates times factors of [1 / ratio_scale, ratio_scale), one for each direction."""
    return apply(passes.scale, x, param, rng)


def rand_rotate(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Turn by up to ``ratio_rotate`` degrees either way."""
    return apply(passes.rotate, x, param, rng)


def rand_flip(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Mirror left and right, with probability ``prob_flip``."""
    return apply(passes.flip, x, param, rng)


def rand_brightness(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Add up to half of ``brightness``, or take it away."""
    return apply(passes.brightness, x, param, rng)


def rand_saturation(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Multiply the distance to a pixel's mean over the channels by [0, ``saturation``)."""
    return apply(passes.saturation, x, param, rng)


def rand_contrast(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Multiply the distance to the image's mean by [``contrast``, 1 + ``contrast``)."""
    return apply(passes.contrast, x, param, rng)


def rand_crop(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Shift by whole pixels, up to ``ratio_crop_pad`` of each side; zeros come in."""
    return apply(passes.crop, x, param, rng)


def rand_cutout(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """Zeros in a rectangle with ``ratio_cutout`` of each side, its centre anywhere."""
    return apply(passes.cutout, x, param, rng)


AUGMENT_FNS = {
    "color": [rand_brightness, rand_saturation, rand_contrast],
    "crop": [rand_crop],
    "cutout": [rand_cutout],
    "flip": [rand_flip],
    "scale": [rand_scale],
    "rotate": [rand_rotate],
}
# Functions of AUGMENT_FNS that can share a pass; another one that a script puts there is called by itself.
OPERATIONS = {
    rand_scale: passes.scale,
    rand_rotate: passes.rotate,
    rand_flip: passes.flip,
    rand_brightness: passes.brightness,
    rand_saturation: passes.saturation,
    rand_contrast: passes.contrast,
    rand_crop: passes.crop,
    rand_cutout: passes.cutout,
}


def diff_augment(
    x: Tensor,
    strategy: str,
    seed: int,
    param: ParamDiffAug | None,
    rng: str | None,
    functions: dict[str, list[Callable]],
    operations: dict[Callable, Callable],
    align_corners: bool,
) -> Tensor:
    """:func:`DiffAugment` with a family's ``AUGMENT_FNS`` and the operations that its functions stand for."""
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
    pending, draws = _begin(x, param, rng, "DiffAugment", align_corners)
    for name in names if param.aug_mode == "M" else [names[draws.choose(len(names))]]:
        for function in functions[name]:
            if function in operations:
                operations[function](pending, draws, param)
            else:
                pending.through(lambda images, function=function: function(images, param))
    return pending.images()


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
    return diff_augment(x, strategy, seed, param, rng, AUGMENT_FNS, OPERATIONS, align_corners=False)


def _drawn_as_published(n: int, settings: "DcAugmentation") -> tuple[np.ndarray, np.ndarray]:
    """Operation of every image [n] and its two numbers [n, 2], from numpy's global generator in the published order."""
    names, scale, crop, rotate = settings.names, settings.scale, settings.crop, settings.rotate
    operations, numbers = [], np.zeros((n, 2))
    for i in range(n):
        name = names[np.random.permutation(len(names))[0]]
        if name == "crop":
            numbers[i] = np.random.permutation(crop * 2)[0], np.random.permutation(crop * 2)[0]
        elif name == "scale":
            numbers[i] = np.random.uniform(1 - scale, 1 + scale), np.random.uniform(1 - scale, 1 + scale)
        elif name == "rotate":
            numbers[i, 0] = np.random.randint(-rotate, rotate)
        operations.append(name)
    return np.array(operations), numbers


def _published_normal(x: Tensor) -> Tensor:
    return torch.stack([torch.randn(x.shape[1:], device=x.device) for _ in x])


def _keyed_normal(x: Tensor) -> Tensor:
    return keys.normal(randomness.next_key("augment-noise"), x.numel(), x.device).view_as(x)


def augment(images: Tensor, dc_aug_param: dict | None, device: Any, *, rng: str | None = None) -> Tensor:
    """DC's augmentation for evaluation (:class:`fastdd.evaluation.dc_augmentation.DcAugmentation`): for every image one
    operation of the strategy; ``images`` are changed in place. Rotations are computed on the CPU.

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
    from fastdd.evaluation import dc_augmentation

    names = [field.name for field in fields(dc_augmentation.DcAugmentation)]
    settings = dc_augmentation.DcAugmentation(**{name: dc_aug_param[name] for name in names})
    if randomness.mode(rng) == "legacy":
        drawn, normal = _drawn_as_published(len(images), settings), _published_normal
    else:
        drawn, normal = dc_augmentation.draw(len(images), settings, randomness.next_key("augment")), _keyed_normal
    dc_augmentation.augment(images, settings, *drawn, normal)
    return images
