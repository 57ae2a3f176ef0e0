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
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdd.core.text import shown

if TYPE_CHECKING:
    from fastdd.data.sets.memory import Layout

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


def shape_text(shape: Sequence[int]) -> str:
    """An image's channels, height and width in a word.

    >>> shape_text((3, 32, 24))
    '3x32x24'
    """
    return "x".join(map(str, shape))


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

    def __repr__(self) -> str:
        return f"Split({len(self):,} images {shape_text(self.images.shape[1:])})"

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


def _counted(number: int, word: str) -> str:
    plural = "es" if word.endswith("s") else "s"
    return f"{number} {word}{plural if number != 1 else ''}"


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
        for name in ("mean", "std"):
            # numpy's numbers can't be written as JSON.
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
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

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        groups: Any = None,
        *,
        test: tuple | None = None,
        validation: tuple | None = None,
        layout: "Layout | None" = None,
        name: str = "arrays",
        class_names: Sequence[str] | None = None,
        group_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        test_split: float | None = None,
        seed: int = 0,
    ) -> "Dataset":
        """A data set of arrays or tensors.

        Args:
            images: [N, C, H, W], [N, H, W, C] or, gray, [N, H, W]: told apart by which end has 1, 3 or 4 channels.
                uint8; or floats of 0 to 1 or of 0 to 255, or other whole numbers of 0 to 255, which become uint8.
            labels: [N], whole numbers or words; sorted, they are the classes.
            groups: [N], likewise: the protected attribute.
            test, validation: (images, labels) or (images, labels, groups). Without ``test``, a share of every class and
                group is held out for it.
            layout: NCHW or NHWC, where the shape does not tell.
            name: what runs and tables call it.
            class_names, group_names: names of the numbers 0, 1, ..., or the order of the words.
            mean, std: per channel, for pixels of 0 to 1; by default those of the training pixels.
            test_split: the share that is held out, 0.2 by default.
            seed: of what is held out.

        Raises:
            TypeError, ValueError: in one line: what is no image, label or group; a shape that tells no layout; pixels
                that look normalised.

        >>> rgb = np.random.default_rng(0).random((20, 8, 8, 3))
        >>> Dataset.from_arrays(rgb, ["cat", "dog"] * 10, name="pets")
        Dataset('pets', 16 + 4 images 3x8x8, 2 classes, 1 group)
        """
        from fastdd.data.sets.memory import of_arrays

        about = {"name": name, "class_names": class_names, "group_names": group_names, "mean": mean, "std": std}
        train = (images, labels) if groups is None else (images, labels, groups)
        return of_arrays(train, test, validation, layout=layout, test_split=test_split, seed=seed, **about)

    @classmethod
    def from_torch(
        cls, train: Any, test: Any = None, validation: Any = None, *, size: int | None = None, **about: Any
    ) -> "Dataset":
        """A data set of any ``torch.utils.data.Dataset`` of (image, label) or (image, label, group), read into memory.

        Images are Pillow's, tensors [C, H, W] or arrays [H, W, C], of one size, and not normalised: take ``Normalize``
        and augmentations out of the transform.

        Args:
            train, test, validation: the splits; test images are held out where there is no ``test``.
            size: height and width of Pillow's images, as RGB: shorter side resized, centre crop.
            **about: as of :meth:`from_arrays`: name, class_names (by default ``train.classes``), test_split, seed ...
        """
        from fastdd.data.sets.memory import of_torch

        return of_torch(train, test, validation, size=size, **{"name": "torch", **about})

    @classmethod
    def from_folder(cls, root: str | os.PathLike, **options: Any) -> "Dataset":
        """A data set of image files by class folder or table: ``fastdd.data.load("folder", root, **options)``.

        Its options are those of :func:`fastdd.data.sets.folder.folder`: size, table, path_column, label_column ...
        """
        from fastdd.data.catalog import load

        return load("folder", root, **options)

    @classmethod
    def from_webdataset(cls, train: Any, test: Any = None, validation: Any = None, **about: Any) -> "Dataset":
        """A data set of tar shards of samples KEY.jpg (or png, ...), KEY.cls or KEY.json, read into memory as RGB.

        Args:
            train, test, validation: shards: a path, a pattern (``train-*.tar``) or a list; or one folder of shards,
                whose names or folders begin with train, test or val.
            size: height and width, 32 by default: shorter side resized, centre crop.
            label, group: the field that is the class (``cls``, or one of JSON; by default the first of cls, label,
                class), and the group, if there is one.
            **about: as of :meth:`from_arrays`: name, class_names, test_split, seed ...

        Raises:
            FileNotFoundError, RuntimeError, ValueError: no shard, a damaged one, a sample that lacks a field.
        """
        from fastdd.data.sets.shards import of_webdataset

        return of_webdataset(train, test, validation, **{"name": "webdataset", **about})

    @classmethod
    def from_huggingface(cls, source: Any, **about: Any) -> "Dataset":
        """A data set of the package ``datasets`` (``pip install 'fastdd[hf]'``), read into memory as RGB.

        Args:
            source: a ``datasets.Dataset`` or ``DatasetDict``; a Parquet file, a folder of them or of ``save_to_disk``;
                or a name for ``datasets.load_dataset``.
            size: height and width, 32 by default: shorter side resized, centre crop.
            image, label, group: the columns; image and label by default those whose types say it.
            test: the split that is tested on; by default test, else validation, else a share is held out.
            **about: as of :meth:`from_arrays`: name, class_names, test_split, seed ...

        Raises:
            RuntimeError, ValueError: in one line: no such package, what can't be read, columns that must be named.
        """
        from fastdd.data.sets.shards import of_huggingface

        return of_huggingface(source, **{"name": "huggingface", **about})

    def __repr__(self) -> str:
        held = "" if self.validation is None else f" + {len(self.validation):,} for validation"
        counts = f"{len(self.train):,} + {len(self.test):,}{held} images {shape_text(self.train.images.shape[1:])}"
        names = f"{_counted(self.num_classes, 'class')}, {_counted(self.num_groups, 'group')}"
        return f"Dataset({self.name!r}, {counts}, {names})"

    def _repr_html_(self) -> str:
        """For notebooks: some training images of the classes."""
        from fastdd.data.pictures import table_of_classes

        train, test = self.train, self.test
        return table_of_classes(
            repr(self),
            self.class_names,
            {"training": train.labels, "test": test.labels},
            lambda rows: train.images[rows],
        )

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
