"""DC's augmentation as MTT and TESLA have it: matrices with ``align_corners=True``, the same for square images."""

from typing import Any

from torch import Tensor

from fastdd.compat.dc import augmentation as dc
from fastdd.compat.dc.augmentation import *
from fastdd.compat.shared import passes

__all__ = dc.__all__


def rand_scale(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """:func:`fastdd.compat.dc.rand_scale` with ``align_corners=True``."""
    return dc.apply(passes.scale, x, param, rng, align_corners=True)


def rand_rotate(x: Tensor, param: Any, *, rng: str | None = None) -> Tensor:
    """:func:`fastdd.compat.dc.rand_rotate` with ``align_corners=True``."""
    return dc.apply(passes.rotate, x, param, rng, align_corners=True)


AUGMENT_FNS = {**dc.AUGMENT_FNS, "scale": [rand_scale], "rotate": [rand_rotate]}
_OPERATIONS = {**dc.OPERATIONS, rand_scale: passes.scale, rand_rotate: passes.rotate}


def DiffAugment(
    x: Tensor, strategy: str = "", seed: int = -1, param: dc.ParamDiffAug | None = None, *, rng: str | None = None
) -> Tensor:
    """:func:`fastdd.compat.dc.DiffAugment` with ``align_corners=True``."""
    return dc.diff_augment(x, strategy, seed, param, rng, AUGMENT_FNS, _OPERATIONS, align_corners=True)
