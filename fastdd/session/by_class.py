"""The runs of decoupled methods: units of images, made one after another, and written as they are made."""

import hashlib
import math
import mmap
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdd import models
from fastdd.core import ranks
from fastdd.core.malloc import give_back
from fastdd.core.stop import StopEvent, stop_requests
from fastdd.data import Dataset, SyntheticSet
from fastdd.data.files.store import store_of
from fastdd.data.initial import describe, input_digest
from fastdd.data.set_file import SetFile
from fastdd.methods import Decoupled, DecoupledSettings, Teacher, method
from fastdd.session.callbacks import Callback
from fastdd.session.folder import METRICS, SYNTHETIC, RunFolder


class ClassRun:
    """A run of a decoupled method: from its settings to a synthetic set, unit by unit.

    Each unit's images are written when they are made, to their place in the set's file, and no more than the units in
    work are in memory, whatever the number of classes. A killed run goes on with the units that are not there, and
    ends with the same bytes; those that are there are compared with their SHA-256. The ranks of a job take units in
    turn; rank 0 writes.

    Args:
        config, dataset, out, resume, device, weights, groups, about, callbacks: as :class:`fastdd.session.Run` takes
            them; of callbacks those are told that ask for losses.
        teacher: of the data set's classes (:func:`fastdd.session.teachers.open_teacher`).

    Attributes:
        config, dataset, callbacks, out: as given.
        method: the method.
        step, total: units done, and of the run.
        iteration, steps_per_iteration: ``step`` and 1.
        loss: of the last unit; NaN before the first of this start.
        stop: set when the run shall end.

    Raises:
        ValueError: settings that do not fit the data, an ``out`` that belongs to another run, more ranks than units.
        OSError: ``out`` can't be written, or the disk has no room for the set.
    """

    stop: StopEvent
    steps_per_iteration = 1

    def __init__(
        self,
        config: DecoupledSettings,
        dataset: Dataset,
        *,
        teacher: Teacher,
        out: str | os.PathLike | None = None,
        resume: bool = False,
        device: torch.device | str = "cpu",
        weights: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        about: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
    ):
        kind = method(config.method)
        if kind.takes("weights", config.mode) != (weights is not None):
            what = "no weights" if weights is not None else "weights of the training images"
            raise ValueError(f"{config.method} with debias={config.debias} takes {what}")
        if groups is not None and not kind.takes("groups", config.mode):
            raise ValueError(f"{config.method} with debias={config.debias} goes by no groups: leave them out")
        self.config, self.dataset, self.callbacks = config, dataset, [*callbacks]
        train = dataset if groups is None else dataset.with_groups(groups)
        given = None if weights is None else torch.as_tensor(weights)
        self.method: Decoupled = kind(config, train, teacher, device, given)
        if ranks.world() > len(self.method.units):
            raise ValueError(
                f"{config.method} has {len(self.method.units)} units of images here, too few for {ranks.world()} "
                "ranks: start fewer"
            )
        self.step, self.total, self.loss = 0, len(self.method.units), math.nan
        self.out, self.folder = None if out is None else Path(out), None
        self._labels = torch.arange(dataset.num_classes).repeat_interleave(config.ipc)
        self._metadata = describe(
            dataset,
            method=config.method,
            debias=config.debias,
            run=config.model_dump(),
            ipc=config.ipc,
            seed=config.seed,
            teacher=teacher.about(),
            **(about or {}),
        )
        digest = input_digest(dataset, weights, groups, teacher.digest)
        ranks.agree("distillation", config, digest, out is None, resume)
        self._done: dict[int, dict[str, Any]] = {}
        if self.out is not None:
            self._done = ranks.first(lambda: self._open(digest, resume))
        self.step = len(self._done)

    @property
    def iteration(self) -> int:
        """Units done."""
        return self.step

    @property
    def seconds(self) -> float:
        """Spent in this start."""
        return time.perf_counter() - self._began

    @property
    def _shape(self) -> tuple[int, ...]:
        return (len(self._labels), self.dataset.channels, *self.dataset.size)

    def _open(self, digest: str, resume: bool) -> dict[int, dict[str, Any]]:
        """Take the folder. Returns the log's rows of units whose images are there, by their numbers."""
        size = 4 * math.prod(self._shape)
        # The folder asks for four checkpoints; there is one set, which is written once.
        self.folder = RunFolder(
            self.out, self.config, digest, resume=resume, size=size // 4, store=store_of(self.dataset)
        )
        self.folder.describe()
        self._file = SetFile(self.out / SYNTHETIC, self._shape, self._labels, self._metadata)
        there = self._file.open()
        kept = self.folder.keep(METRICS, lambda row: there and self._is_whole(row))
        return {row["step"]: row for row in kept}

    def _is_whole(self, row: dict[str, Any]) -> bool:
        """Whether the images of a row of the log are as they were written."""
        if row["step"] >= self.total:
            return False
        content = self._file.read(self.method.units[row["step"]].rows(self.config.ipc))
        whole = hashlib.sha256(b"".join(content)).hexdigest() == row.get("sha256")
        if not whole:
            what = f"{self.out}: the images of unit {row['step']} are damaged, and are made again"
            warnings.warn(what, RuntimeWarning, stacklevel=2)
        return whole

    def tell(self, what: str, *arguments: Any) -> None:
        """Call this method of all callbacks."""
        for callback in self.callbacks:
            getattr(callback, what)(self, *arguments)

    def go(self) -> SyntheticSet:
        """Make all units that are left.

        Returns:
            The synthetic set, on the CPU; with ``out``, mapped from its file.

        Raises:
            RuntimeError: a loss that is not finite.
            OSError: the folder can't be written.
            KeyboardInterrupt: Ctrl-C or SIGTERM, after a unit.
        """
        self._began, self._kept = time.perf_counter(), {}
        left = [number for number in range(self.total) if number not in self._done]
        with stop_requests() as self.stop, models.exact_convolutions():
            for first in range(0, len(left), ranks.world()):
                self._round(left[first : first + ranks.world()])
                stopping = any(ranks.exchange(self.stop.is_set()))
                if stopping and self.step < self.total:
                    cure = "" if self.out is None else "; --resume continues"
                    raise KeyboardInterrupt(f"stopped after {self.step:,} of {self.total:,} units of images{cure}")
        if self.out is None:
            images = torch.empty(self._shape)
            for number, made in self._kept.items():
                images[self.method.units[number].rows(self.config.ipc)] = made
            return SyntheticSet(images, self._labels, self._metadata)
        ranks.first(lambda: self._file.finish())
        return SyntheticSet.load(self.out / SYNTHETIC)

    def _round(self, numbers: Sequence[int]) -> None:
        """Make these units, one a rank, and keep them."""
        own = numbers[ranks.rank()] if ranks.rank() < len(numbers) else None
        made = None if own is None else self.method.make(self.method.units[own])
        _forget_pixels(self.dataset.train.images)
        parts = ranks.exchange(None if made is None else (own, made[0].numpy(), made[1]))
        for number, images, loss in filter(None, parts):
            if not math.isfinite(loss) or not np.isfinite(images).all():
                raise RuntimeError(f"unit {number} of images: its loss is {loss:g}, or its values are not finite")
            self.loss = loss
            if self.out is None:
                self._kept[number] = torch.from_numpy(images)
            else:
                ranks.first(lambda number=number, images=images, loss=loss: self._keep(number, images, loss))
            self.step += 1
        give_back()
        self.tell("losses", numbers[0], [loss for _, _, loss in filter(None, parts)])

    def _keep(self, number: int, images: np.ndarray, loss: float) -> None:
        self._file.write(self.method.units[number].rows(self.config.ipc), torch.from_numpy(images))
        digest = hashlib.sha256(np.ascontiguousarray(images)).hexdigest()
        self.folder.log(METRICS, [{"step": number, "loss": loss, "sha256": digest}])


def _forget_pixels(images: np.ndarray) -> None:
    """Give back pages of a mapped file that were read: the system keeps what it likes, the process none."""
    mapped = images
    while isinstance(mapped, np.ndarray) and mapped.base is not None:
        mapped = mapped.base
    if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)
