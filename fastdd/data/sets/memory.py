"""Data sets of what lies in memory: arrays, and data sets of PyTorch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastdd.core.text import shown
from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.statistics import channel_statistics
from fastdd.data.sets.folder import TEST_SHARE
from fastdd.data.sets.table_rows import in_order
from fastdd.data.sets.variants import check_share, split_rows

Layout = Literal["NCHW", "NHWC"]
# Gray, colour, colour with opacity.
_CHANNELS = (1, 3, 4)
# Floats of 0 to 255 reach it in some image; those of 0 to 1 that were resized or rounded stay below.
_LEAST_WHITE = 2


@dataclass(frozen=True)
class Part:
    """The images of a split before classes and groups have numbers.

    Args:
        images: uint8 [N, C, H, W].
        labels: one an image, whole numbers or words.
        groups: likewise; None where they are not known.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None


def of_arrays(
    train: tuple,
    test: tuple | None = None,
    validation: tuple | None = None,
    *,
    layout: Layout | None = None,
    **about: Any,
) -> Dataset:
    """:meth:`fastdd.data.Dataset.from_arrays`, of (images, labels[, groups]) a split."""
    parts: dict[str, Part] = {}
    given = {"train": train, "test": test, "validation": validation}
    given = {split: part for split, part in given.items() if part is not None}
    for split, part in given.items():
        if not isinstance(part, tuple | list) or len(part) not in (2, 3):
            raise TypeError(
                f"{split} is (images, labels) or (images, labels, groups), not {shown(type(part).__name__)}"
            )
    pixels = {split: _array(part[0], f"{split} images") for split, part in given.items()}
    # Floats are of 0 to 1 or 0 to 255 in all splits alike; other numbers are of 0 to 255 whatever those are.
    of_floats = [float(values.max()) for values in pixels.values() if values.size and values.dtype.kind == "f"]
    most = max(of_floats, default=0.0)
    if 1 < most < _LEAST_WHITE:
        raise ValueError(f"floats up to {most:.8g} are neither of 0 to 1 nor of 0 to 255: clamp them, or give uint8")
    scale = 255 if most <= 1 else 1
    for split, part in given.items():
        images = _levels(_channels_first(pixels[split], layout), scale, split)
        groups = _column(part[2], "groups", len(images), split) if len(part) == 3 else None
        parts[split] = Part(images, _column(part[1], "labels", len(images), split), groups)
    return assembled(parts, **about)


def _array(values: Any, what: str) -> np.ndarray:
    """A NumPy array of an array or tensor of whatever device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{what} must be numbers, not {array.dtype}")
    return array


def _channels_first(images: np.ndarray, layout: Layout | None) -> np.ndarray:
    """[N, C, H, W] of images whose channels are first or last: told apart by the shape, or refused."""
    if layout not in (None, "NCHW", "NHWC"):
        raise ValueError(f"layout must be NCHW or NHWC, not {layout!r}")
    if images.ndim == 3:
        images = images[:, None] if layout != "NHWC" else images[..., None]
        return images if layout != "NHWC" else images.transpose(0, 3, 1, 2)
    if images.ndim != 4:
        raise ValueError(f"images must be [N, C, H, W], [N, H, W, C] or gray [N, H, W], not {list(images.shape)}")
    if layout is None:
        first, last = images.shape[1] in _CHANNELS, images.shape[3] in _CHANNELS
        if first == last:
            why = "both ends can be channels" if first else "neither end is 1, 3 or 4 channels"
            raise ValueError(f"images of the shape {list(images.shape)}: {why}; give layout='NCHW' or 'NHWC'")
        layout = "NCHW" if first else "NHWC"
    return images if layout == "NCHW" else images.transpose(0, 3, 1, 2)


def _levels(images: np.ndarray, scale: int, split: str) -> np.ndarray:
    """uint8 levels: uint8 as they are, true and false, whole numbers of 0..255, floats of 0..255 after ``scale``."""
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype == bool:
        return np.ascontiguousarray(images).astype(np.uint8) * 255
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ValueError(f"{split} images have values that are not finite")
    least, largest = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if least < 0 or largest > 255:
        hint = "they look normalised: give pixels" if least < 0 else "scale them to 8 bits"
        raise ValueError(
            f"{split} images are {images.dtype} of {least:g} to {largest:g}, not uint8, 0 to 1 or 0 to 255; {hint}"
        )
    scaled = images * np.float64(scale) if images.dtype.kind == "f" else images
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint8))


def _column(values: Any, what: str, count: int, split: str) -> np.ndarray | None:
    """Labels or groups, whole numbers or words, one an image."""
    if values is None:
        return None
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.shape != (count,):
        raise ValueError(f"{split} {what} must be [{count}], one an image, not {list(array.shape)}")
    if array.dtype.kind == "f" and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "buiUO" or not all(
        isinstance(one, int | np.integer | str | bool) for one in array.tolist()
    ):
        raise TypeError(f"{split} {what} must be whole numbers or words, not {array.dtype}")
    return array.astype(np.int64) if array.dtype.kind in "bui" else array.astype(str)


def assembled(
    parts: dict[str, Part],
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    group_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    test_split: float | None = None,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
    remarks: Iterable[str] = (),
) -> Dataset:
    """The data set of its splits; what is not there to be tested on is held out of every class and group.

    Raises:
        ValueError: a share that leaves nothing on one side, or one with a test split; labels that names do not fit.
    """
    remarks = list(remarks)
    with_groups = [part.groups is not None for part in parts.values()]
    if any(with_groups) and not all(with_groups):
        raise ValueError("groups are given of some splits and not of others: give them of all, or of none")
    labels, class_names = _numbered({split: part.labels for split, part in parts.items()}, class_names, "label")
    groups: dict[str, np.ndarray]
    if all(with_groups):
        groups, group_names = _numbered({split: part.groups for split, part in parts.items()}, group_names, "group")
    else:
        groups = {split: np.zeros(len(part.images), np.int64) for split, part in parts.items()}
        group_names = tuple(group_names or ("all",))[:1]
    splits = {split: Split(part.images, labels[split], groups[split]) for split, part in parts.items()}
    if "test" not in splits:
        train, share = splits["train"], TEST_SHARE if test_split is None else test_split
        check_share("test_split", share)
        held = split_rows(train.labels, train.groups, share, seed)
        if not 0 < share < 1 or not held.any():
            raise ValueError(f"test_split {share:g} of {len(train)} images leaves none on one side: give test too")
        splits |= {"train": train.take(np.flatnonzero(~held)), "test": train.take(np.flatnonzero(held))}
        remarks.append(
            f"no test images are given: {share:.0%} of every class and group, drawn by seed {seed}, are held out: "
            f"{len(splits['train'])} + {len(splits['test'])} images"
        )
    elif test_split is not None:
        raise ValueError(f"test_split {test_split:g} is for images without a test split: leave one of them out")
    if mean is None or std is None:
        found = channel_statistics(splits["train"].images)
        mean, std = found[0] if mean is None else mean, found[1] if std is None else std
    told = {"builder": "arrays", **(provenance or {})} | ({"remarks": remarks} if remarks else {})
    return Dataset(
        name,
        splits["train"],
        splits["test"],
        class_names,
        group_names,
        tuple(mean),
        tuple(std),
        told,
        splits.get("validation"),
    )


def _numbered(
    columns: dict[str, np.ndarray], names: Sequence[str] | None, what: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Values as numbers from 0, and their names: numbers index given names, words are looked up in them."""
    words = [values.dtype.kind == "U" for values in columns.values()]
    if any(words) and not all(words):
        raise ValueError(f"{what}s are words in some splits and numbers in others: give them alike")
    values = np.concatenate(list(columns.values()))
    if values.dtype.kind != "U":
        if names is not None:
            return columns, tuple(map(str, names))
        there = np.unique(values)
        return {split: np.searchsorted(there, one) for split, one in columns.items()}, tuple(map(str, there.tolist()))
    known = in_order(set(values.tolist())) if names is None else list(map(str, names))
    place = {name: number for number, name in enumerate(known)}
    unknown = next((value for value in values.tolist() if value not in place), None)
    if unknown is not None:
        raise ValueError(f"the {what} {unknown!r} is not one of the names {', '.join(known[:5])}")
    return {split: np.array([place[x] for x in one.tolist()], np.int64) for split, one in columns.items()}, tuple(known)


def of_torch(train: Any, test: Any = None, validation: Any = None, *, size: int | None = None, **about: Any) -> Dataset:
    """:meth:`fastdd.data.Dataset.from_torch`."""
    given = {"train": train, "test": test, "validation": validation}
    read = {split: _read(one, split, size) for split, one in given.items() if one is not None}
    names = getattr(train, "classes", None)
    whole = all(np.asarray(labels).dtype.kind in "bui" for _, labels, _ in read.values())
    if about.get("class_names") is None and whole and isinstance(names, list | tuple):
        about["class_names"] = [str(name) for name in names]
    of_splits = {
        split: (images, labels) if groups is None else (images, labels, groups)
        for split, (images, labels, groups) in read.items()
    }
    return of_arrays(of_splits["train"], of_splits.get("test"), of_splits.get("validation"), layout="NCHW", **about)


def _read(dataset: Any, split: str, size: int | None) -> tuple[np.ndarray, list, list | None]:
    """All items of a data set of PyTorch, in order."""
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        raise TypeError(f"{split} is a torch.utils.data.Dataset, not {type(dataset).__name__}")
    # One that is iterated over can have a length, too.
    items = iter(dataset) if hasattr(dataset, "__iter__") else (dataset[row] for row in range(len(dataset)))
    images, labels, groups = [], [], []
    for row, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise TypeError(f"{split} item {row} is {type(item).__name__}, not (image, label) or (image, label, group)")
        image = _image(item[0], size, f"{split} item {row}")
        if images and image.shape != images[0].shape:
            raise ValueError(
                f"{split} item {row} is {list(image.shape)}, item 0 {list(images[0].shape)}: give size=, or make "
                "them alike in the transform"
            )
        images.append(image)
        labels.append(item[1].item() if hasattr(item[1], "item") else item[1])
        if len(item) == 3:
            groups.append(item[2].item() if hasattr(item[2], "item") else item[2])
    if not images:
        raise ValueError(f"{split} has no items")
    if groups and len(groups) < len(images):
        raise ValueError(f"{split}: some items have a group and some have none")
    return np.stack(images), labels, groups or None


def _image(image: Any, size: int | None, where: str) -> np.ndarray:
    """[C, H, W] of a picture of Pillow, a tensor [C, H, W], or an array [H, W, C] or [H, W]."""
    if hasattr(image, "convert"):
        return of_picture(image, size)
    if size is not None:
        raise TypeError(f"{where}: size is for pictures of Pillow; resize {type(image).__name__} in the transform")
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
        return image[None] if image.ndim == 2 else image
    image = np.asarray(image)
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1) if image.ndim == 3 else image


def of_picture(image: Any, size: int | None) -> np.ndarray:
    """uint8 [C, H, W] of a picture of Pillow as a viewer shows it; gray as one channel where no size is asked for."""
    from fastdd.data.files.decode import Recipe, fitted, shown

    plain = shown(image)
    if size is not None:
        return np.ascontiguousarray(np.asarray(fitted(plain.convert("RGB"), Recipe(size))).transpose(2, 0, 1))
    pixels = np.asarray(plain)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
