"""Differentiable augmentation of IDC and DREAM: flip, color and cutout always, and one of the other operations."""

import numpy as np
import torch
from torch import Tensor

from fastdd.compat.shared import passes, randomness
from fastdd.compat.shared.passes import KeyedDraws, Passes
from fastdd.core import rng as keys

__all__ = ["DiffAug"]


class _PublishedDraws:
    """One draw for the batch: numpy's global generator. One an image: numpy's for matrices, torch's for the others."""

    def __init__(self, images: int, batch: bool):
        self._images, self._batch = images, batch

    def uniform(self, dtype: torch.dtype | None = None) -> np.ndarray | float:
        if self._batch:
            return np.random.uniform()
        if dtype is None:
            return np.random.uniform(size=self._images)
        return torch.rand(self._images, dtype=dtype).double().numpy()

    def integers(self, low: int, high: int) -> np.ndarray | int:
        if self._batch:
            return np.random.randint(low, high)
        return torch.randint(low, high, (self._images,)).numpy()

    def choose(self, count: int) -> int:
        return np.random.randint(count)


class DiffAug:
    """Augment batches, differentiably: flip, color and cutout if the strategy has them, and between color and cutout
    one of its other operations (or all).

    Args:
        strategy: operations joined by underscores, of color, crop, cutout, flip, scale, rotate and translate; the empty
            string and ``none`` return batches as they are.
        batch: one transform for all images of a batch; otherwise one an image.
        ratio_cutout: side of what is cut out, as a fraction of the image's.
        single: flip, color and cutout are operations like the others.
        rng: ``legacy`` draws what the published code draws (numpy's global generator, and torch's where ``batch`` is
            false), bit for bit, if images are on a CPU; ``fast`` from counter-based keys. None: as
            :func:`fastdd.compat.use_rng` says at the time of a call.

    Attributes are the ranges (``prob_flip``, ``ratio_scale``, ...), and may be changed, as may ``aug_fn``.

    >>> real, synthetic = torch.rand(6, 3, 8, 8), torch.rand(2, 3, 8, 8, requires_grad=True)
    >>> DiffAug("color_crop_cutout_flip", batch=True)(torch.cat([real, synthetic])).shape
    torch.Size([8, 3, 8, 8])
    """

    def __init__(
        self,
        strategy: str = "color_crop_cutout_flip_scale_rotate",
        batch: bool = False,
        ratio_cutout: float = 0.5,
        single: bool = False,
        *,
        rng: str | None = None,
    ):
        self.prob_flip = 0.5
        self.ratio_scale = 1.2
        self.ratio_rotate = 15.0
        self.ratio_crop_pad = 0.125
        self.ratio_cutout = ratio_cutout
        self.ratio_noise = 0.05
        self.brightness = 1.0
        self.saturation = 2.0
        self.contrast = 0.5
        self.batch = batch
        self._rng = None if rng is None else randomness.checked_mode(rng)
        names = [] if strategy.lower() in ("", "none") else strategy.lower().split("_")
        always = [] if single else [name for name in ("flip", "color", "cutout") if name in names]
        self.aug = bool(names)
        self.flip, self.color, self.cutout = (name in always for name in ("flip", "color", "cutout"))
        self.strategy = [name for name in names if name not in always]
        self.aug_fn = {
            "color": [self.brightness_fn, self.saturation_fn, self.contrast_fn],
            "crop": [self.crop_fn],
            "cutout": [self.cutout_fn],
            "flip": [self.flip_fn],
            "scale": [self.scale_fn],
            "rotate": [self.rotate_fn],
            "translate": [self.translate_fn],
        }

    def __call__(self, x: Tensor, single_aug: bool = True, seed: int = -1) -> Tensor:
        """Augment x.

        Args:
            x: images [N, C, H, W], floating point.
            single_aug: one of the operations other than flip, color and cutout; otherwise all of them.
            seed: above 0, the call is a function of the seed. ``legacy`` reseeds numpy's and torch's global generators
                with it before every operation, so all make the same draws; ``fast`` does not.

        Returns:
            Images of x's shape and dtype, contiguous; x itself if there is no strategy.

        Raises:
            ValueError: an unknown operation is to be applied, or x is no batch of floating-point images.

        Cost: one or two passes over the images.
        """
        if not self.aug:
            return x
        pending, draws, legacy = self._begin(x, self.batch, seed)

        def apply(function) -> None:
            if legacy:
                self.set_seed(seed)
            operation = _OPERATIONS.get(getattr(function, "__func__", function))
            if operation is None:
                pending.through(lambda images: function(images, self.batch))
            else:
                operation(pending, draws, self)

        def apply_all(name: str) -> None:
            if name not in self.aug_fn:
                raise ValueError(f"unknown augmentation {name!r}: the strategy may have {', '.join(self.aug_fn)}")
            for function in self.aug_fn[name]:
                apply(function)

        if self.flip:
            apply(self.flip_fn)
        if self.color:
            apply_all("color")
        if self.strategy:
            for name in [self.strategy[draws.choose(len(self.strategy))]] if single_aug else self.strategy:
                apply_all(name)
        if self.cutout:
            apply(self.cutout_fn)
        return pending.images()

    def set_seed(self, seed: int) -> None:
        """Seed the global generators of numpy and torch, if ``seed`` is above 0."""
        if seed > 0:
            np.random.seed(seed)
            randomness.seed_torch(seed)

    def _begin(self, x: Tensor, batch: bool, seed: int):
        rows = 1 if batch else x.shape[0]
        legacy = randomness.mode(self._rng) == "legacy"
        if legacy:
            draws = _PublishedDraws(x.shape[0], batch)
        else:
            draws = KeyedDraws(keys.key(seed, "compat-DiffAug") if seed > 0 else randomness.next_key("DiffAug"), rows)
        return Passes(x, rows), draws, legacy

    def _alone(self, operation, x: Tensor, batch: bool) -> Tensor:
        pending, draws, _ = self._begin(x, batch, seed=-1)
        operation(pending, draws, self)
        return pending.images()

    def scale_fn(self, x: Tensor, batch: bool = True) -> Tensor:
        """Sample at coordinates times factors of [1 / ratio_scale, ratio_scale), one for each direction."""
        return self._alone(passes.scale, x, batch)

    def rotate_fn(self, x: Tensor, batch: bool = True) -> Tensor:
        """Turn by up to ``ratio_rotate`` degrees either way."""
        return self._alone(passes.rotate, x, batch)

    def flip_fn(self, x: Tensor, batch: bool = True) -> Tensor:
        """Mirror left and right, with probability ``prob_flip``."""
        return self._alone(passes.flip, x, batch)

    def brightness_fn(self, x: Tensor, batch: bool = True) -> Tensor:
        """Add up to half of ``brightness``, or take it away."""
        return self._alone(passes.brightness, x, batch)

    def saturation_fn(self, x: Tensor, batch: bool = True) -> Tensor:
        """Multiply the distance to a pixel's mean over the channels by [0, ``saturation``)."""
        return self._alone(passes.saturation, x, batch)

    def contrast_fn(self, x: Tensor, batch: bool = True) -> Tensor:
        """Multiply the distance to the image's mean by [``contrast``, 1 + ``contrast``)."""
        return self._alone(passes.contrast, x, batch)

    def translate_fn(self, x: Tensor, batch: bool = True) -> Tensor:
        """Shift left or right by whole pixels, up to ``ratio_crop_pad`` of the width; zeros come in."""
        return self._alone(passes.translate, x, batch)

    def crop_fn(self, x: Tensor, batch: bool = True) -> Tensor:
        """Shift by whole pixels, up to ``ratio_crop_pad`` of each side; zeros come in."""
        return self._alone(passes.crop, x, batch)

    def cutout_fn(self, x: Tensor, batch: bool = True) -> Tensor:
        """Zeros in a rectangle with ``ratio_cutout`` of each side, its centre anywhere."""
        return self._alone(passes.cutout, x, batch)


# Methods that can share a pass; an overridden one, or another that a script puts into aug_fn, is called by itself.
_OPERATIONS = {
    DiffAug.scale_fn: passes.scale,
    DiffAug.rotate_fn: passes.rotate,
    DiffAug.flip_fn: passes.flip,
    DiffAug.brightness_fn: passes.brightness,
    DiffAug.saturation_fn: passes.saturation,
    DiffAug.contrast_fn: passes.contrast,
    DiffAug.translate_fn: passes.translate,
    DiffAug.crop_fn: passes.crop,
    DiffAug.cutout_fn: passes.cutout,
}
