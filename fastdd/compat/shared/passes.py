"""The operations of published augmentation code, added up into as few passes of ``fastdd.ops.augment`` as they allow.

An operation draws its numbers, in the published order, and goes into the parameter rows of the pass at hand. A pass
has one order (matrix, brightness, saturation, contrast, cutout): an operation too late for it starts another.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fastdd.core import rng
from fastdd.ops.augment import SMALLEST_SCALE, Param, augment, identity_params
from fastdd.reference.augment import augment as augment_by_torch

_IDENTITY = identity_params(1, dtype=torch.float64).numpy()
# Numbers drawn at a time: more than most calls need.
_BLOCK = 12


class Draws(Protocol):
    """Random numbers, one a parameter row (or one for all)."""

    def uniform(self, dtype: torch.dtype | None = None) -> np.ndarray | float:
        """On [0, 1). ``dtype`` is that of the published draw; None where a matrix is drawn."""

    def integers(self, low: int, high: int) -> np.ndarray | int:
        """On low..high - 1."""

    def choose(self, count: int) -> int:
        """One of 0..count - 1, for all rows."""


class KeyedDraws:
    """From a counter-based key; a row's numbers do not depend on how many rows there are."""

    def __init__(self, key: int, rows: int):
        self._key, self._rows, self._blocks, self._left = key, rows, 0, []

    def uniform(self, dtype: torch.dtype | None = None) -> np.ndarray:
        if not self._left:
            key = self._key if self._blocks == 0 else rng.key(self._key, "block", self._blocks)
            drawn = rng.uniform_array(key, self._rows * _BLOCK).astype(np.float64)
            self._left = list(drawn.reshape(self._rows, _BLOCK).T)
            self._blocks += 1
        return self._left.pop()

    def integers(self, low: int, high: int) -> np.ndarray:
        return low + np.floor(self.uniform() * (high - low))

    def choose(self, count: int) -> int:
        # The key's own 64 bits are uniform, and are no row's numbers.
        return (self._key % (1 << 64)) * count >> 64


class Passes:
    """Images [N, C, H, W] and the operations that they are waiting for.

    Args:
        images: float16, float32, float64 or bfloat16 (float16 is computed in float32).
        rows: 1 (one transform for all images) or N.
        align_corners: how matrices are meant, as in ``F.affine_grid``; the same for square images.
    """

    def __init__(self, images: Tensor, rows: int, align_corners: bool = False):
        if images.dim() != 4 or not images.is_floating_point():
            raise ValueError(
                f"images must be floating point [N, C, H, W], not {images.dtype} {list(images.shape)}: "
                "normalise them first"
            )
        self._images, self._rows = images, rows
        self._begin()
        self.height, self.width = images.shape[2:]
        inner = 1 if align_corners else 0
        self._x_per_y = (self.width - inner) / max(self.height - inner, 1)
        self._y_per_x = (self.height - inner) / max(self.width - inner, 1)

    @property
    def dtype(self) -> torch.dtype:
        return self._images.dtype

    def _begin(self) -> None:
        self._params = np.repeat(_IDENTITY, self._rows, 0)
        self._waiting, self._last, self._by_torch = False, None, False

    def _columns(self, first: Param) -> np.ndarray:
        """Parameter rows whose columns from ``first`` on are free, transposed: [13, R]."""
        if self._last is not None and self._last >= first:
            self._images = self.images()
            self._begin()
        self._waiting, self._last = True, first
        return self._params.T

    def _sample(self, a, b, c, d, e, f) -> None:
        p = self._columns(Param.A)
        # What may be there are flips: (sign, 0, offset) for x.
        sign = p[Param.A].copy()
        p[Param.C] += sign * c
        p[Param.A], p[Param.B] = sign * a, sign * b
        p[Param.D], p[Param.E], p[Param.F] = d, e, f

    def warp(self, xx, xy, yx, yy) -> None:
        """Sample at the matrix ((xx, xy), (yx, yy)) times the normalised coordinates (x, y), as ``F.affine_grid``."""
        b, d = xy * self._x_per_y, yx * self._y_per_x
        x, y = (self.width - 1) / 2, (self.height - 1) / 2
        self._sample(xx, b, (1 - xx) * x - b * y, d, yy, (1 - yy) * y - d * x)

    def warp_by_torch(self) -> None:
        """Let the pass at hand be computed by plain torch: matrices that enlarge a lot are too much for the op."""
        self._by_torch = True

    def shift(self, right, down) -> None:
        """Sample whole pixels further right and down."""
        self._sample(1.0, 0.0, right, 0.0, 1.0, down)

    def flip(self, which) -> None:
        """Mirror left and right where ``which`` is true: what the rows have is mirrored with it, so no pass begins."""
        p, sign = self._params.T, np.where(which, -1.0, 1.0)
        p[Param.C] += np.where(which, self.width - 1, 0) * p[Param.A]
        p[Param.A] *= sign
        if self._last is not None:
            p[Param.F] += np.where(which, self.width - 1, 0) * p[Param.D]
            p[Param.D] *= sign
            left, right = p[Param.LEFT], p[Param.RIGHT]
            p[[Param.LEFT, Param.RIGHT]] = np.where(which, (self.width - right, self.width - left), (left, right))
        self._waiting = True

    def colour(self, column: Param, value) -> None:
        """Add to the brightness, or set the factor of saturation or contrast."""
        self._columns(column)[column] = value

    def cut(self, top, left, bottom, right) -> None:
        """Rows top..bottom - 1 of columns left..right - 1 become zero."""
        p = self._columns(Param.TOP)
        p[Param.TOP], p[Param.LEFT], p[Param.BOTTOM], p[Param.RIGHT] = top, left, bottom, right

    def through(self, function: Callable[[Tensor], Tensor]) -> None:
        """Apply ``function``, which is none of ours, to the images so far."""
        self._images = function(self.images())
        self._begin()

    def images(self) -> Tensor:
        """The images after all operations so far, contiguous."""
        x = self._images
        if not self._waiting:
            return x.contiguous()
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        params = torch.from_numpy(self._params).to(dtype).to(x.device)
        run = augment_by_torch if self._by_torch else augment
        return run(x.float(), params).half() if x.dtype == torch.float16 else run(x, params)


# The operations, with the published ranges: ``settings`` is the published ParamDiffAug or DiffAug.


def scale(passes: Passes, draws: Draws, settings: Any) -> None:
    ratio = settings.ratio_scale
    x = draws.uniform() * (ratio - 1.0 / ratio) + 1.0 / ratio
    y = draws.uniform() * (ratio - 1.0 / ratio) + 1.0 / ratio
    passes.warp(x, 0.0, 0.0, y)
    if min(ratio, 1.0 / ratio) < SMALLEST_SCALE:
        passes.warp_by_torch()


def rotate(passes: Passes, draws: Draws, settings: Any) -> None:
    angle = (draws.uniform() - 0.5) * 2 * settings.ratio_rotate / 180 * math.pi
    cos, sin = np.cos(angle), np.sin(angle)
    passes.warp(cos, -sin, sin, cos)
    # Turned in normalised coordinates, long images are enlarged along their longer side, by up to the sides' ratio.
    if min(passes.height, passes.width) < 2 * SMALLEST_SCALE * max(passes.height, passes.width):
        passes.warp_by_torch()


def flip(passes: Passes, draws: Draws, settings: Any) -> None:
    passes.flip(draws.uniform(torch.get_default_dtype()) < settings.prob_flip)


def brightness(passes: Passes, draws: Draws, settings: Any) -> None:
    passes.colour(Param.BRIGHTNESS, (draws.uniform(passes.dtype) - 0.5) * settings.brightness)


def saturation(passes: Passes, draws: Draws, settings: Any) -> None:
    passes.colour(Param.SATURATION, draws.uniform(passes.dtype) * settings.saturation)


def contrast(passes: Passes, draws: Draws, settings: Any) -> None:
    passes.colour(Param.CONTRAST, draws.uniform(passes.dtype) + settings.contrast)


def _farthest(side: int, settings: Any) -> int:
    return int(side * settings.ratio_crop_pad + 0.5)


def crop(passes: Passes, draws: Draws, settings: Any) -> None:
    most_y, most_x = _farthest(passes.height, settings), _farthest(passes.width, settings)
    down = draws.integers(-most_y, most_y + 1)
    passes.shift(draws.integers(-most_x, most_x + 1), down)


def translate(passes: Passes, draws: Draws, settings: Any) -> None:
    most = _farthest(passes.width, settings)
    passes.shift(draws.integers(-most, most + 1), 0.0)


def cutout(passes: Passes, draws: Draws, settings: Any) -> None:
    ends = []
    for side in (passes.height, passes.width):
        k = int(side * settings.ratio_cutout + 0.5)
        first = draws.integers(0, side + (1 - k % 2)) - k // 2
        # The centre may be anywhere, so the ends may lie outside.
        ends.append((np.maximum(first, 0), np.minimum(first + k, side)))
    (top, bottom), (left, right) = ends
    passes.cut(top, left, bottom, right)
