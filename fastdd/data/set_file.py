"""A synthetic set's file that is filled image by image, so that no process holds all of them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdd.core.files import write_error
from fastdd.data.synthetic import SyntheticSet

_ALIGNED = 8


class SetFile:
    """The file of a set, begun beside its place, and put there when it is whole.

    Args:
        path: where the set will be.
        shape: [M, C, H, W].
        labels: int64 [M].
        metadata: as of :class:`fastdd.data.SyntheticSet`, which it is checked as.

    Attributes:
        unfinished: the file that is filled; it stays where a process is killed, and is gone on with.

    The bytes are those that :meth:`fastdd.data.SyntheticSet.save` writes.
    """

    def __init__(self, path: Path, shape: Sequence[int], labels: Tensor, metadata: Mapping[str, Any]):
        empty = SyntheticSet(torch.empty(0, *shape[1:]), labels[:0], dict(metadata))
        self.path, self.unfinished = path, path.with_suffix(".unfinished")
        self._image = 4 * int(torch.Size(shape[1:]).numel())
        content = {"__metadata__": {"fastdd": json.dumps(empty.metadata, sort_keys=True, allow_nan=False)}}
        sizes = (("labels", "I64", [shape[0]], labels.nbytes), ("images", "F32", [*shape], shape[0] * self._image))
        end = 0
        for name, dtype, dims, size in sizes:
            content[name] = {"dtype": dtype, "shape": dims, "data_offsets": [end, end + size]}
            end += size
        header = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        header += b" " * (-len(header) % _ALIGNED)
        self._begin = len(header).to_bytes(8, "little") + header + labels.contiguous().numpy().tobytes()
        self._size = len(self._begin) + shape[0] * self._image

    def open(self) -> bool:
        """Begin, or go on with what is there, finished or not. Returns whether that was just this set."""
        place = self.path if self.path.exists() else self.unfinished
        self._finished = place == self.path
        try:
            there = place.exists()
            self._file = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
            same = there and os.pread(self._file, len(self._begin), 0) == self._begin
            if not same or os.fstat(self._file).st_size != self._size:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, self._begin, 0)
                os.ftruncate(self._file, self._size)
                return False
            return True
        except OSError as error:
            raise write_error(place, error) from error

    def write(self, rows: Sequence[int], images: Tensor) -> None:
        """Put images, float32 [n, C, H, W], at these rows. A kill loses none; where the machine stops they may be lost,
        which :meth:`read` and a digest tell: to flush the disk for every unit took longer than to make it."""
        try:
            for row, image in zip(rows, images, strict=True):
                _write_all(self._file, image.contiguous().numpy().data.cast("B"), self._at(row))
        except OSError as error:
            raise write_error(self.unfinished, error) from error

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """The bytes of images."""
        return [os.pread(self._file, self._image, self._at(row)) for row in rows]

    def finish(self) -> None:
        """Put the file in its place."""
        os.fsync(self._file)
        os.close(self._file)
        if not self._finished:
            os.replace(self.unfinished, self.path)

    def _at(self, row: int) -> int:
        return len(self._begin) + row * self._image


def _write_all(file: int, content: memoryview, at: int) -> None:
    while content:
        written = os.pwrite(file, content, at)
        content, at = content[written:], at + written
