"""Soft labels in a file: a teacher's logits of every epoch's views, in half precision, and no image.

A safetensors file with one tensor, ``logits`` float16 [epochs, M, classes], in the order of an epoch's batches; its
metadata says by which seed, batches and crops the views are made again. 2 bytes a number: 300 epochs of 10,000 images
in 1,000 classes are 6 GB. It is mapped, and read where it is used.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdd.core import reading
from fastdd.core.files import write_error
from fastdd.core.space import check_room
from fastdd.core.text import shown
from fastdd.data import DeviceImages
from fastdd.evaluation.relabel import Relabelling, TeachersLogits, Views

_SCHEMA = 1
_LARGEST_HEADER = 1 << 20


class LabelFile:
    """Stored logits, mapped.

    Args:
        path: a file that :func:`write_labels` wrote.

    Attributes:
        about: what it says of itself: ``set``, digest of the set (:meth:`fastdd.data.SyntheticSet.digest`);
            ``teacher``; ``seed``, ``batch``, ``strips`` and ``smallest`` of the views.
        epochs, images, classes: of the logits.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is truncated, or none.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file of labels {path}: fastdd relabel writes one")
        with open(self.path, "rb") as file, reading.damage_of(path, "is no file of labels", ValueError):
            length = int.from_bytes(file.read(8), "little")
            if length > _LARGEST_HEADER:
                raise ValueError("its header is too long")
            header = reading.parse_json(file.read(length))
            self.about: dict[str, Any] = _checked(reading.parse_json(header["__metadata__"]["fastdd_labels"]))
            self.epochs, self.images, self.classes = header["logits"]["shape"]
            whole = 8 + length + 2 * self.epochs * self.images * self.classes
            if header["logits"]["dtype"] != "F16" or not all(map(reading.is_count, header["logits"]["shape"])):
                raise ValueError("it has another schema")
            if os.fstat(file.fileno()).st_size != whole:
                raise ValueError(f"it is truncated, {os.fstat(file.fileno()).st_size} of {whole} bytes")
        shape = self.epochs, self.images, self.classes
        self._logits = np.memmap(self.path, np.float16, "r", 8 + length, shape)

    @property
    def digest(self) -> str:
        """Of the teacher."""
        return self.about["teacher"]["digest"]

    @property
    def views(self) -> Views:
        """The views that are labelled."""
        about = self.about
        return Views(about["seed"], Relabelling(strips=about["strips"], smallest=about["smallest"]))

    def at(self, epoch: int, first: int, n: int) -> Tensor:
        """float16 [n, classes], from place ``first`` of an epoch on; a copy.

        Raises:
            ValueError: they are not finite.
        """
        found = torch.from_numpy(np.array(self._logits[epoch, first : first + n]))
        if not found.isfinite().all():
            raise ValueError(f"{self.path} is damaged: labels of epoch {epoch} are not finite")
        return found


def _checked(about: Any) -> dict[str, Any]:
    """What a file of labels says of itself, of the types and within the ranges that :func:`write_labels` gives."""
    if about["schema"] != _SCHEMA:
        raise ValueError("it has another schema")
    counts, words = ("seed", "batch", "strips"), {"set": about["set"], "teacher": about["teacher"]["digest"]}
    wrong = [name for name in counts if not reading.is_count(about[name]) or (name != "seed" and not about[name])]
    wrong += [name for name, value in words.items() if not isinstance(value, str)]
    if not (reading.is_number(about["smallest"]) and 0 < about["smallest"] <= 1):
        wrong.append("smallest")
    if wrong:
        raise ValueError(f"its {wrong[0]} is {shown(about[wrong[0]])}")
    return about


def write_labels(
    path: str | os.PathLike,
    images: DeviceImages,
    teacher: TeachersLogits,
    views: Views,
    *,
    classes: int,
    epochs: int,
    batch: int,
    of_set: str,
    about_teacher: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> LabelFile:
    """Store a teacher's logits of the views of all epochs; what a killed process has done is gone on with.

    Args:
        path: the file; beside it ``.unfinished`` until it is whole.
        images: of the set, [M, C, H, W], on the device where the teacher is.
        of_set: digest of the set.
        progress: called with (epochs done, epochs).

    Raises:
        ValueError: there is a file already.
        OSError: it can't be written, or the disk has no room for it.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} is there already; give another --out")
    about = {
        "schema": _SCHEMA,
        "set": of_set,
        "teacher": about_teacher,
        "seed": views.seed,
        "batch": batch,
        "strips": views.how.strips,
        "smallest": views.how.smallest,
    }
    n = len(images.pixels)
    size = 2 * epochs * n * classes
    logits = {"dtype": "F16", "shape": [epochs, n, classes], "data_offsets": [0, size]}
    metadata = {"fastdd_labels": json.dumps(about, sort_keys=True)}
    header = json.dumps({"__metadata__": metadata, "logits": logits}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    begin = len(header).to_bytes(8, "little") + header
    unfinished = path.with_name(path.name + ".unfinished")
    check_room(path.parent, size - (unfinished.stat().st_size if unfinished.exists() else 0), "the file of labels")
    try:
        with open(unfinished, "r+b" if unfinished.exists() else "w+b") as file:
            same = file.read(len(begin)) == begin
            done = max(0, os.fstat(file.fileno()).st_size - len(begin)) // (size // epochs) if same else 0
            file.seek(0)
            file.write(begin)
            file.truncate(len(begin) + done * (size // epochs))
            file.seek(0, os.SEEK_END)
            for epoch in range(done, epochs):
                for number, rows in enumerate(views.order(epoch, n, images.pixels.device).split(batch)):
                    said = teacher.logits(views.images(images, rows, epoch, number))
                    file.write(said.to(torch.float16).cpu().numpy().tobytes())
                file.flush()
                if progress is not None:
                    progress(epoch + 1, epochs)
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise write_error(path, error) from error
    return LabelFile(path)
