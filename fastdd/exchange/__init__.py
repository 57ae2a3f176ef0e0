"""Synthetic sets from and for other projects: one module a format, and what they have in common.

A format reads a path into a :class:`~fastdd.exchange.found.Found` (:func:`read`), which becomes a synthetic set
once it is known what its images are normalised with (:func:`assemble`); and writes a set (:func:`write`).
"""

import inspect
import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from fastdd.core import bounds, reading
from fastdd.core.files import DAMAGE, reason
from fastdd.core.text import one_of
from fastdd.data.class_names import places, renumbered
from fastdd.data.synthetic import SyntheticSet
from fastdd.data.zca import Zca
from fastdd.exchange import dc, dcbench, folder, hf, idc, mtt, npz, parquet, torch_files, webdataset
from fastdd.exchange.found import Content, Export, Found, checked_images, checked_labels, plain_tensor, sha256
from fastdd.exchange.published import Published, constants, hint

__all__ = [
    "FORMATS",
    "Export",
    "Found",
    "Published",
    "assemble",
    "constants",
    "describe_files",
    "is_foreign",
    "read",
    "unknown_normalisation",
    "write",
]

# In the order in which a path is tried: dcbench's folders look like one of classes to none but folder, which is last.
FORMATS = {
    **{"dcbench": dcbench, "mtt": mtt, "idc": idc, "dc": dc, "npz": npz, "webdataset": webdataset, "parquet": parquet},
    **{"hf": hf, "folder": folder},
}
# Formats that say how many images an image holds.
_KEEP_FORMATION = ("idc", "npz")
LABELS = ("probabilities", "logits")
_KEEP_GROUPS = ("npz",)
# More classes than images only up to here: a subset of a data set keeps its numbers.
_MOST_UNNAMED = 10_000
# Formats that read the file themselves.
_READ_APART = (".tar", ".parquet")
_SUFFIXES = (".pt", ".pth", ".pkl", ".npz", *_READ_APART)


def is_foreign(path: str | os.PathLike) -> bool:
    """Whether a path looks, by its names, like another project's synthetic set."""
    path = Path(path)
    if path.is_dir():
        return any(FORMATS[name].matches(Content(path)) for name in ("dcbench", "mtt", "idc", "dc", "hf"))
    return path.suffix in _SUFFIXES


def read(
    path: str | os.PathLike, format: str | None = None, hints: dict[str, Any] | None = None, **options: Any
) -> tuple[str, Found]:
    """What a path holds, and the name of its format; nothing in it is run.

    Args:
        path: file or folder.
        format: one of :data:`FORMATS`; by default the one that the content has.
        hints: options that a format without them does not need.
        options: the format's own (keyword arguments of its ``read``); None counts as not given.

    Raises:
        FileNotFoundError: no such path, or a file missing beside it.
        ValueError: in one line: not of the format, or of none; an option that the format does not have.
        RuntimeError: in one line: a damaged file, or one that would run code.
    """
    chosen = None if format is None else _format(format)
    content = _open(Path(path))
    if chosen is None:
        format, chosen = next(((name, own) for name, own in FORMATS.items() if own.matches(content)), ("", None))
    if chosen is None or not chosen.matches(content):
        wanted = f"{format}, {chosen.DESCRIPTION}" if chosen else f"any known format ({', '.join(FORMATS)})"
        raise ValueError(f"{path} is not {wanted}: it holds {content.describe()}")
    known = inspect.signature(chosen.read).parameters
    hints = {name: value for name, value in (hints or {}).items() if name in known}
    given = _options(format, chosen.read, hints | options)
    try:
        found = chosen.read(content, **given)
    except (TypeError, LookupError, AttributeError, ArithmeticError) as error:  # what no check of its foresaw
        raise ValueError(f"{path} is damaged: {reason(error)}") from None
    found.origin = Path(path)
    return format, found


def write(made: SyntheticSet, path: str | os.PathLike, to: str, *, force: bool = False, **options: Any) -> Export:
    """Write a set in a format; files are whole or absent.

    Args:
        made: the set.
        path: file or folder, as the format has it; folders are made.
        to: one of :data:`FORMATS`.
        force: replace files that are there.
        options: the format's own (keyword arguments of its ``write``); None counts as not given.

    Raises:
        ValueError: in one line: what the format can't hold, a path that is taken, an option that it does not have.
        OSError: a file can't be written.
    """
    chosen = _format(to)
    options, notes = _options(to, chosen.write, options), []
    if made.formation > 1 and to not in _KEEP_FORMATION:
        factor, stored, made = made.formation, len(made.images), made.decoded()
        notes = [f"{to} has no multi-formation: {stored} images are decoded into {len(made.images)} (factor {factor})"]
    if made.groups is not None and to not in _KEEP_GROUPS:
        notes.append(f"{to} has no groups of images: they are left out")
    done = chosen.write(made, Path(path), force=force, **options)
    return Export(done.files, [*notes, *done.notes])


def assemble(
    found: Found,
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    class_names: tuple[str, ...] | None,
    labels: str = "probabilities",
    learning_rate: float | None = None,
    zca: Zca | None = None,
    metadata: dict[str, Any],
) -> SyntheticSet:
    """The synthetic set of what was read.

    Args:
        found: from :func:`read`.
        mean, std: what normalised images are normalised with, and pixels shall be; not looked at with ``zca``.
        class_names: in the labels' order; by default the file's own, or numbers.
        labels: what soft labels are: probabilities or logits.
        learning_rate: in place of the file's.
        zca: what whitened the images.
        metadata: the rest of the set's.

    Raises:
        ValueError: in one line, naming the file: images or labels that don't fit, a class that is not of
            ``class_names``.
    """
    if labels not in LABELS:
        raise ValueError(f"unknown meaning of labels {labels!r}; {one_of(labels, LABELS)}")
    path = found.origin or found.files[0]
    images = checked_images(found, path)
    classes, soft = checked_labels(found, len(images), path, labels)
    zca = zca or found.zca
    if zca is not None:
        if found.space == "pixels":
            raise ValueError(f"{path} holds pixels, not whitened images: leave out --zca")
        mean, std = [0.0] * images.shape[1], [1.0] * images.shape[1]
    mean, std = [float(value) for value in mean], [float(value) for value in std]
    if not all(0 < value < math.inf for value in std):
        raise ValueError(f"std must be positive, not {std}")
    if len(mean) != images.shape[1]:
        if found.space == "normalised" or len(mean) != 1 or not (images == images[:, :1]).all():
            raise ValueError(f"{path}: images have {images.shape[1]} channels, mean and std are of {len(mean)}")
        images = images[:, :1].clone()  # gray, written as colour
    if found.space == "pixels":
        images = (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    own = found.class_names
    if own is not None and (classes.min() < 0 or classes.max() >= len(own)):
        raise ValueError(f"{path}: labels {classes.min()}..{classes.max()} are outside its {len(own)} classes")
    if class_names is None:
        count = soft.shape[1] if soft is not None else _counted_classes(classes, own, path)
        class_names = own or tuple(map(str, range(count)))
    elif own is not None:
        try:
            place = places(own, class_names)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if place is None:
            found.notes.append("its classes are not called as the data set's: they are taken in their order")
        elif place != list(range(len(class_names))):
            classes, soft = renumbered(classes, soft, place, len(class_names))
            if kde := metadata.get("kde"):  # its diagnostics are rows of the classes that it has itself
                metadata = metadata | {"kde": {name: value for name, value in kde.items() if name != "diagnostics"}}
    with reading.damage_of(path, "can't be a synthetic set", ValueError):
        made = SyntheticSet(
            images,
            classes,
            {**metadata, "mean": mean, "std": std, "class_names": list(class_names)},
            learning_rate=found.learning_rate if learning_rate is None else learning_rate,
            soft_labels=soft,
            zca=zca,
            groups=None if found.groups is None else plain_tensor(found.groups, path, "groups"),
        )
        made.check_values()
    return made


def _counted_classes(classes: torch.Tensor, own: Sequence[str] | None, path: Path) -> int:
    """How many classes there are where nothing names them; ValueError where labels can't be their numbers."""
    largest = int(classes.max())
    if own is None and largest >= max(len(classes), _MOST_UNNAMED):
        raise ValueError(
            f"{path}: the label {largest} of one of its {len(classes)} images is no class's number; if it is, give the "
            "--dataset whose class it is"
        )
    return largest + 1


def describe_files(paths: list[Path]) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of what was read; of many files, of all together."""
    if len(paths) <= 8:
        return [{"file": path.name, "bytes": path.stat().st_size, "sha256": sha256([path])} for path in paths]
    size = sum(path.stat().st_size for path in paths)
    return [{"file": f"{len(paths)} files", "bytes": size, "sha256": sha256(paths)}]


def unknown_normalisation(format: str, found: Found) -> ValueError:
    """The question that a file can't answer."""
    if found.space == "pixels":
        text = f"{format} files hold pixels; what they shall be normalised with is asked for"
    else:
        text = f"{format} files don't say what their images are normalised with"
    suggestion = hint(found.files[0])
    return ValueError(f"{text}: give --dataset NAME, or --mean and --std{f' ({suggestion})' if suggestion else ''}")


def _format(name: str) -> ModuleType:
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; {one_of(name, FORMATS)}")
    return FORMATS[name]


def _options(format: str, function: Any, given: dict[str, Any]) -> dict[str, Any]:
    known = {parameter.name for parameter in inspect.signature(function).parameters.values()}
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in chosen.keys() - known:
        raise ValueError(f"{format} has no {name}: leave it out")
    return chosen


def _open(path: Path) -> Content:
    if path.is_dir():
        return Content(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe or a device, not a file")
    if path.suffix in _READ_APART:
        return Content(path)
    if path.suffix == ".pkl":
        return Content(path, torch_files.load_pickle(path))
    names = []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            bounds.check_zip(path)
    except DAMAGE as error:
        raise RuntimeError(f"{path} is damaged: {reason(error)}") from None
    if names and all(name.endswith(".npy") for name in names):
        return Content(path, _arrays(path))
    with open(path, "rb") as file:
        if file.read(9)[8:] == b"{":
            raise ValueError(f"{path} is a safetensors file: fastdd's own sets need no import")
    return Content(path, torch_files.load(path))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return bounds.load_npz(path)
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise RuntimeError(f"{path} would run code (pickled objects in an array): refused") from None
        raise RuntimeError(f"{path} is damaged: {error}") from None
    except DAMAGE as error:
        raise RuntimeError(f"{path} is damaged: {reason(error)}") from None
