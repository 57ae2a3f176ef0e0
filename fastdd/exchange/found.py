"""What a file of another project holds, before it is known how to use it."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fastdd.core import bounds, files, reading
from fastdd.data.about import check_about
from fastdd.data.dataset import check_channels_first
from fastdd.data.synthetic import SyntheticSet
from fastdd.data.zca import Zca

RECORD = "fastdd.json"
_HASH_BYTES = 1 << 20
# Of the sum of a row of soft labels, which float16 rounds.
_ROW_TOLERANCE = 2e-3


@dataclass
class Content:
    """A path that was opened.

    Args:
        path: the file or folder.
        value: what ``torch.save`` wrote; the arrays of an ``.npz`` by name; None of a folder, or a file that its format
            reads.
    """

    path: Path
    value: Any = None

    def describe(self) -> str:
        """What it holds, for messages."""
        if self.value is None and self.path.is_file():
            return f"a file {self.path.suffix}"
        if self.value is None:
            names = sorted(path.name for path in self.path.iterdir())
            return f"a folder with {_listed(names)}" if names else "an empty folder"
        if isinstance(self.value, dict):
            return f"a dict with {_listed(list(map(str, self.value)))}" if self.value else "an empty dict"
        if isinstance(self.value, Tensor):
            return f"one tensor {list(self.value.shape)}"
        if isinstance(self.value, list | tuple):
            return f"a {type(self.value).__name__} of {len(self.value)}"
        return f"an object of type {type(self.value).__name__}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


@dataclass
class Found:
    """Images and labels of a file, and what it says of them.

    Args:
        images: [M, C, H, W], as they are in the file.
        labels: classes [M], or soft labels [M, classes].
        soft_labels: where the file has both.
        groups: protected group of each image [M], where the file says it.
        space: whether images are normalised (or whitened) or pixels in [0, 1].
        files: what was read.
        record: metadata of the set that was exported, if fastdd did it.
        whitened: whether images are whitened, as far as that can be seen; the digest of the ZCA where it is known.
        learning_rate: step size stored beside.
        class_names: where the file has its own, in the labels' order.
        zca: likewise.
        origin: the path that was given.
        about: method, model and published accuracies, where known.
        notes: what the user should know.
    """

    images: Any
    labels: Any
    space: Literal["normalised", "pixels"]
    files: list[Path]
    record: dict[str, Any] | None = None
    whitened: bool | str = False
    soft_labels: Any = None
    groups: Any = None
    learning_rate: float | None = None
    class_names: tuple[str, ...] | None = None
    zca: Zca | None = None
    origin: Path | None = None
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self):
        whitened = (self.record or {}).pop("zca", None)
        if whitened and self.space == "normalised":
            self.whitened = whitened
        elif whitened:
            # It was taken back; whitened images' mean and std, 0 and 1, are not for pixels.
            self.record = {name: value for name, value in self.record.items() if name not in ("mean", "std")}


def checked_images(found: Found, path: Path) -> Tensor:
    """float32 [M, C, H, W] on the CPU, without history; pixels of uint8 become [0, 1].

    Raises:
        ValueError: naming the file: other shapes, dtypes or values.
    """
    images = plain_tensor(found.images, path, "images")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"{path}: images must have the shape [M, C, H, W], not {list(images.shape)}")
    try:
        check_channels_first(images.shape)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if images.dtype == torch.uint8 and found.space == "pixels":
        return images.float() / 255
    if not images.is_floating_point():
        raise ValueError(f"{path}: images are {_name(images.dtype)}, not {found.space} values in floating point")
    if images.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        found.notes.append(f"images were {_name(images.dtype)}, and are rounded to float32")
    images = images.to(torch.float32)
    wrong = (~images.flatten(1).isfinite().all(1)).nonzero()
    if len(wrong):
        raise ValueError(f"{path}: image {int(wrong[0])} has values that are not finite")
    return images


def checked_labels(found: Found, count: int, path: Path, meaning: str) -> tuple[Tensor, Tensor | None]:
    """int64 [M] classes, and float32 [M, classes] soft labels if there are any.

    Soft labels in place of classes are the classes that they stand for if they are one-hot; the class of others is
    their largest.

    Args:
        meaning: of soft labels: probabilities or logits (whose softmax is taken).

    Raises:
        ValueError: naming the file: another number of labels, broken numbers, soft labels that are no probabilities.
    """
    labels = plain_tensor(found.labels, path, "labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.ndim not in (1, 2) or len(labels) != count or labels.is_complex():
        raise ValueError(
            f"{path}: labels must be numbers [{count}], or soft labels [{count}, classes], "
            f"not {_name(labels.dtype)} {list(labels.shape)}"
        )
    if labels.ndim == 2:
        soft = _probabilities(labels, path, meaning)
        classes = soft.argmax(1)
        one_hot = torch.equal(soft, torch.nn.functional.one_hot(classes, soft.shape[1]).float())
        return classes, None if one_hot else soft
    if labels.is_floating_point() and not (labels == labels.round()).all():
        row = int((labels != labels.round()).nonzero()[0])
        raise ValueError(f"{path}: label {row} is {labels[row]:g}, not a class's number")
    soft = found.soft_labels
    if soft is not None:
        soft = _probabilities(plain_tensor(soft, path, "soft labels"), path, meaning)
    return labels.to(torch.int64), soft


def _probabilities(rows: Tensor, path: Path, meaning: str) -> Tensor:
    """float32 rows that sum to 1; unchanged if they are that."""
    if rows.ndim != 2 or rows.is_complex() or not rows.shape[1]:
        raise ValueError(f"{path}: its soft labels are {_name(rows.dtype)} {list(rows.shape)}, not [images, classes]")
    exact = rows.double().softmax(-1) if meaning == "logits" else rows.double()
    sums = exact.sum(-1, keepdim=True)
    # Written so that NaN is wrong too.
    wrong = (~((sums - 1).abs() <= _ROW_TOLERANCE) | ~(exact >= 0)).any(-1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"{path}: its soft labels are no probabilities (row {row} sums to {float(sums[row]):g}, its least is "
            f"{float(exact[row].min()):g}); if they are logits, give --labels logits"
        )
    return rows if rows.dtype == torch.float32 and meaning != "logits" else (exact / sums).float()


def plain_tensor(value: Any, path: Path, what: str) -> Tensor:
    """A tensor, or an array as one, with values of its own; ValueError, naming the file, where it is none."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        try:
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))  # a copy, in this machine's order
        except TypeError:
            raise ValueError(f"{path}: {what} are {value.dtype}") from None
    if not isinstance(value, Tensor):
        raise ValueError(f"{path}: {what} must be a tensor, not {type(value).__name__}")
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        kind = value.layout if value.layout != torch.strided else f"quantized or on {value.device}"
        raise ValueError(f"{path}: {what} must be a plain tensor, not {kind}")
    value = value.detach()
    # A small file can repeat its values by strides of zero.
    bounds.check_unpacked(f"{path}: {what}", value.numel() * value.element_size(), value.untyped_storage().nbytes())
    return value


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def sha256(paths: list[Path]) -> str:
    """SHA-256 (hex) of the content of files, in their order."""
    sha = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while part := file.read(_HASH_BYTES):
                sha.update(part)
    return sha.hexdigest()


def write_record(folder: Path, paths: list[Path], made: SyntheticSet, **more: Any) -> Path:
    """``fastdd.json``: what the format of the files beside it has no place for."""
    path = folder / RECORD
    metadata = {**made.metadata, **more} | ({} if made.zca is None else {"zca": made.zca.digest()})
    files.write_text(path, json.dumps({"sha256": sha256(paths), "metadata": metadata}, indent=1, sort_keys=True) + "\n")
    return path


def read_record(folder: Path, paths: list[Path]) -> dict[str, Any] | None:
    """The metadata in ``fastdd.json``; None if there is none, or if it is of other files."""
    try:
        record = reading.parse_json(reading.content(folder / RECORD))
        return as_record(record["metadata"]) if record["sha256"] == sha256(paths) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def as_record(value: Any) -> dict[str, Any] | None:
    """A value that is the metadata of a set; None if it is anything else."""
    kinds = {"mean": int | float, "std": int | float, "class_names": str}
    if not isinstance(value, dict):
        return None
    for name, kind in kinds.items():
        if not isinstance(value.get(name), list) or not all(isinstance(part, kind) for part in value[name]):
            return None
    try:
        check_about(value)
    except ValueError:
        return None
    return value


@dataclass
class Export:
    """What an export wrote.

    Attributes:
        files: the files, or the folder of images.
        notes: what a reader of them must be told, as the format has no place for it; what is lost.
    """

    files: list[Path]
    notes: list[str] = field(default_factory=list)


def check_free(paths: list[Path], force: bool) -> None:
    """ValueError if one of the files is there, unless it may be replaced."""
    for path in paths:
        if path.exists() and not force and not files.is_stream(path):
            raise ValueError(f"{path} exists; give another place, or --force to replace it")
