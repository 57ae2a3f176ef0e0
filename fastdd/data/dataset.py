"""A labelled image data set with a protected attribute: what every reader and builder returns."""

import functools
import hashlib
import json
import math
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np

from fastdd.core.text import shown

# Rows hashed at a time, so that a memory-mapped data set larger than the memory can be digested.
_HASH_ROWS = 4096
# Of a mean or std. Pixels are of 0 to 1, or some say 0 to 255; beyond this, differences of pixels are lost.
_MOST = 1e6
# Gray, colour, colour with opacity.
_CHANNELS = (1, 3, 4)


def check_channels_first(shape: Sequence[int]) -> None:
    """ValueError for images of a shape that is [N, height, width, channels]: a width of 1, 3 or 4 pixels, and many
    channels, is what nobody means.

    >>> check_channels_first((5, 32, 16, 3))
    Traceback (most recent call last):
    ValueError: images are [N, channels, height, width]; [5, 32, 16, 3] looks like [N, height, width, channels]: \
transpose them, in NumPy by images.transpose(0, 3, 1, 2)
    """
    _, channels, height, width = shape
    if width in _CHANNELS and min(channels, height) > max(_CHANNELS):
        raise ValueError(
            f"images are [N, channels, height, width]; {list(shape)} looks like [N, height, width, channels]: "
            "transpose them, in NumPy by images.transpose(0, 3, 1, 2)"
        )


@dataclass(frozen=True, eq=False)
class Split:
    """The training, the test or the validation images of a data set.

    Args:
        images: uint8 [N, C, H, W], pixels 0..255; may be memory-mapped.
        labels: int64 [N], class of each image.
        groups: int64 [N], protected attribute of each image; all zero when unknown.

    Raises:
        TypeError: an array has another dtype.
        ValueError: an array has another shape, or there is no image.

    >>> import numpy as np
    >>> s = Split(np.zeros((3, 1, 2, 2), np.uint8), np.array([0, 1, 1]), np.array([0, 0, 1]))
    >>> len(s), s.counts(2, 2).tolist()
    (3, [[1, 0], [1, 1]])
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def __post_init__(self):
        for name, dtype in (("images", np.uint8), ("labels", np.int64), ("groups", np.int64)):
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                found = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"{name} must be a numpy array of {np.dtype(dtype)}, not {found}")
        if self.images.ndim != 4 or 0 in self.images.shape[1:]:
            raise ValueError(f"images must have the shape [N, C, H, W], not {list(self.images.shape)}")
        check_channels_first(self.images.shape)
        if len(self.images) == 0:
            raise ValueError("a split needs at least one image")
        for name in ("labels", "groups"):
            shape = getattr(self, name).shape
            if shape != (len(self.images),):
                raise ValueError(f"{name} must have the shape [{len(self.images)}], one an image, not {list(shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> "Split":
        """Some rows, in the order given."""
        return Split(self.images[rows], self.labels[rows], self.groups[rows])

    def __getstate__(self) -> dict:
        """For pickle: images that are a mapped file as the name of the file, which another process can map too."""
        state, images = dict(self.__dict__), self.images
        if isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap):  # the whole mapping, not a part of it
            state["images"] = (os.fspath(images.filename), images.dtype, images.mode, images.offset, images.shape)
        return state

    def __setstate__(self, state: dict) -> None:
        if isinstance(state["images"], tuple):
            state = {**state, "images": np.memmap(*state["images"])}
        self.__dict__.update(state)

    def counts(self, num_classes: int, num_groups: int) -> np.ndarray:
        """Images of every class and group, int64 [num_classes, num_groups]."""
        cells = np.bincount(self.labels * num_groups + self.groups, minlength=num_classes * num_groups)
        return cells.reshape(num_classes, num_groups)


def check_normalisation(mean: Sequence[float], std: Sequence[float], channels: int, of: str = "") -> None:
    """ValueError unless there is a mean and a std a channel, numbers of a size that pixels can have."""
    for name, values in (("mean", mean), ("std", std)):
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != channels:
            raise ValueError(f"{of}{name} needs {channels} finite values, one a channel, not {shown(values)}")
        if not all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
            raise ValueError(f"{of}{name} needs {channels} numbers, not {shown(values)}")
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{of}{name} needs {channels} finite values, one a channel, not {values}")
    if min(std) <= 0:
        raise ValueError(f"{of}std must be positive, not {std}")
    if min(std) < 1 / _MOST or max(map(abs, (*mean, *std))) > _MOST:
        raise ValueError(
            f"{of}mean {mean} and std {std} are of no pixels: their sizes must lie in {1 / _MOST:g}..{_MOST:g}"
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, perhaps one for validation, with their names, normalisation and provenance.

    Args:
        name: short name, such as ``c-mnist-fg``.
        train, test: the splits, of one image shape [C, H, W].
        class_names, group_names: one name a class, one a group; labels and groups index them.
        mean, std: per channel, for pixels scaled to [0, 1]: normalised = (pixel / 255 - mean) / std.
        provenance: JSON-able: source files with sizes and SHA-256, builder, parameters, seed.
        validation: images to choose methods, networks and settings by, of the same shape; None where there are none.

    Raises:
        ValueError: a label or group outside its names (with its row), image shapes that differ, ``mean`` or ``std``
            without one finite value a channel (``std`` positive), or no names.
        TypeError: ``provenance`` can't be written as JSON.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    provenance: dict
    validation: Split | None = None

    def __post_init__(self):
        if not self.class_names or not self.group_names:
            raise ValueError(f"{self.name} needs at least one class name and one group name")
        for split_name, split in self.splits.items():
            if self.train.images.shape[1:] != split.images.shape[1:]:
                raise ValueError(
                    f"training images of shape {list(self.train.images.shape[1:])} and {split_name} images of shape "
                    f"{list(split.images.shape[1:])}: all splits need one shape"
                )
        check_normalisation(self.mean, self.std, self.channels)
        for split_name, split in self.splits.items():
            for what, array, names in (
                ("label", split.labels, self.class_names),
                ("group", split.groups, self.group_names),
            ):
                wrong = np.flatnonzero((array < 0) | (array >= len(names)))
                if len(wrong):
                    row = wrong[0]
                    raise ValueError(f"{split_name}: {what} {array[row]} at row {row} is outside 0..{len(names) - 1}")
        try:
            json.dumps(self.provenance)
        except (TypeError, ValueError) as error:
            raise TypeError(f"provenance must be JSON-able: {error}") from None

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name: ``train``, ``test`` and, last, ``validation``."""
        splits = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def tested_on(self) -> str:
        """``validation`` where ``test`` holds held-out training images (option ``val_split``), else ``test``."""
        return "validation" if self.provenance.get("parameters", {}).get("val_split") else "test"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_groups(self) -> int:
        return len(self.group_names)

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train.images.shape[2:]

    def with_groups(self, groups: np.ndarray) -> "Dataset":
        """The same with other groups of the training images, int64 [N] from 0; those of all other images are lost.

        Raises:
            ValueError: another shape or type, or a group below 0 or beyond the number of images.
        """
        groups = np.asarray(groups)
        numbers = groups.dtype.kind in "biuf" and groups.size > 0
        if groups.shape != self.train.labels.shape or groups.dtype != np.int64 or groups.min() < 0:
            raise ValueError(
                f"groups must be int64 [{len(self.train)}] from 0, one a training image, "
                f"not {groups.dtype} {list(groups.shape)}{f' from {groups.min()}' if numbers else ''}"
            )
        if groups.max() >= len(self.train):
            raise ValueError(f"group {groups.max()} of {len(self.train)} training images: number groups from 0 on")
        names = tuple(f"group {number}" for number in range(int(groups.max()) + 1))
        splits = {name: replace(split, groups=np.zeros_like(split.groups)) for name, split in self.splits.items()}
        splits["train"] = replace(self.train, groups=groups)
        return replace(self, **splits, group_names=names)

    def digest(self) -> str:
        """SHA-256 (hex) of the shapes, pixels, labels and groups of all splits.

        The first call reads every pixel; of a packed store that was opened, none does: it is what was written.
        """
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        return self.compute_digest()

    def compute_digest(self) -> str:
        """:meth:`digest`, from the pixels as they are now."""
        sha = hashlib.sha256()
        for split in self.splits.values():
            sha.update(repr(split.images.shape).encode())
            for start in range(0, len(split), _HASH_ROWS):
                sha.update(np.ascontiguousarray(split.images[start : start + _HASH_ROWS]))
            for array in (split.labels, split.groups):
                sha.update(np.ascontiguousarray(array, dtype="<i8"))
        return sha.hexdigest()
