"""Experts: networks trained on the real data, whose parameters after every epoch trajectory matching follows."""

import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdd import models
from fastdd.core import files, plugins, ranks
from fastdd.core.files import GROUPS, WEIGHTS, hold
from fastdd.core.messages import Messages
from fastdd.core.space import bytes_in, check_room
from fastdd.core.stop import StopEvent, stop_requests
from fastdd.core.version import __version__
from fastdd.data import Dataset, Zca
from fastdd.data.initial import input_digest
from fastdd.debias.loss_weights import loss_weights
from fastdd.experts.settings import ExpertSettings
from fastdd.experts.side_by_side import SideBySideTrainer
from fastdd.experts.store import (
    DTYPES,
    MANIFEST,
    VALUES,
    ZCA,
    Experts,
    TrajectoryFile,
    parameter_list,
    read_manifest,
    stored_shape,
    write_manifest,
)
from fastdd.experts.trainer import STATE, Job
from fastdd.experts.workers import train_in_processes
from fastdd.methods.base import moved


@dataclass(frozen=True)
class ExpertProgress:
    """Where expert training is.

    Attributes:
        epoch: epochs done, of all experts.
        total: epochs of all experts.
        expert: the one that the last epoch was of.
        loss: mean training loss of that epoch.
        started: epochs that were done before this start.
        seconds: since this start.
    """

    epoch: int
    total: int
    expert: int
    loss: float
    started: int
    seconds: float


def check_experts_out(path: str | os.PathLike, resume: bool, config: ExpertSettings | None = None) -> None:
    """ValueError if the folder ``path`` holds experts that are not to be continued, or files of something else.

    With ``config`` also if the experts there have other settings.
    Weights and groups that the training is about to use may be there before it.
    """
    path = Path(path)
    if (path / MANIFEST).exists():
        if not resume:
            raise ValueError(f"{path} already holds experts; continue them with --resume or choose another --out")
        if config is not None:
            _check_settings(path, config.model_dump())
    elif path.is_dir():
        known = (files.LOCK, WEIGHTS, GROUPS, ZCA)
        stray = files.entries(path, known)
        if stray:
            raise ValueError(f"{path} is not empty and holds no experts (it has {stray[0]!r}); give an empty folder")


def check_processes(processes: int) -> None:
    """ValueError unless so many processes can train side by side: at least one, and only one in a rank of a job."""
    if processes < 1:
        raise ValueError(f"processes must be at least 1, not {processes}")
    if processes > 1 and ranks.world() > 1:
        raise ValueError(f"torchrun's {ranks.world()} ranks train side by side already: leave out --processes")


def _check_settings(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest in the folder; ValueError unless its experts have these settings."""
    found = read_manifest(path)
    for name, value in config.items():
        # What an earlier version did not have yet is as it is by default.
        field = ExpertSettings.model_fields[name]
        other = found["config"].get(name, None if field.is_required() else field.default)
        if other != value:
            raise ValueError(f"{path} holds experts with {name}={other}, not {value}; choose another --out")
    return found


def describe_experts(config: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The manifest of experts on a data set, before there are any; ``config`` has at least arch, width and depth."""
    net = models.build(
        config["arch"],
        dataset.channels,
        dataset.num_classes,
        dataset.size,
        width=config["width"],
        depth=config["depth"],
    )
    return {
        "config": dict(config),
        "dataset": dataset.name,
        "channels": dataset.channels,
        "num_classes": dataset.num_classes,
        "size": list(dataset.size),
        "class_names": list(dataset.class_names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "provenance": dataset.provenance,
        "parameters": parameter_list(net),
        "versions": {"fastdd": __version__, "torch": torch.__version__},
        **({"plugins": records} if (records := plugins.used(config)) else {}),
    }


def train_experts(
    config: ExpertSettings,
    dataset: Dataset,
    *,
    out: str | os.PathLike,
    resume: bool = False,
    device: torch.device | str = "cpu",
    processes: int = 1,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    progress: Callable[[ExpertProgress], None] | None = None,
    about: Mapping[str, Any] | None = None,
    side_by_side: int | None = None,
) -> Experts:
    """Train experts on ``dataset`` as ``config`` says, and store their parameters after every epoch.

    The ranks of a job take experts in turn and write into the same folder, which all of their machines see; rank 0
    alone writes the manifest, and holds the folder.

    Args:
        config: the training; ``config.dataset`` is only a label here.
        dataset: real images; the test split is used every ``config.eval_every`` epochs.
        out: folder; :class:`fastdd.experts.Experts` says what is in it.
        resume: continue what ``out`` holds (or start it, if there is nothing). A kill loses at most an epoch of every
            expert in training; trajectories are bit-identical to those of an uninterrupted training on the same
            machine and number of threads a process.
        device: cpu or cuda.
        processes: that train experts side by side and share this one's threads. With the same number of threads a
            process, the same bits, however many processes, or ranks, which take their place.
        weights: [N], of the training images, for debias kde; at least 0, some above 0 in every class.
        groups: int64 [N], in place of the training images' protected attribute (clusters, for example), from 0.
        progress: called after every epoch of an expert, on rank 0.
        about: JSON-able, kept in the manifest.
        side_by_side: experts that are trained at a time, as one (:class:`fastdd.models.SideBySide`); the same
            trajectories to rounding. None: on GPUs as many as fit, where bits also depend on how many ranks or
            processes there are; on CPUs one by itself.

    Raises:
        ValueError: settings that do not fit the data, an ``out`` that belongs to another training, or processes of a
            rank.
        RuntimeError: an expert that diverged, a process or rank that died; what was done stays.
        OSError: ``out`` can't be written, or the disk has too little space for the trajectories.
        KeyboardInterrupt: Ctrl-C or SIGTERM, when the epochs that are under way are done.
    """
    check_processes(processes)
    path = Path(out)
    train = dataset if groups is None else dataset.with_groups(groups)
    of_loss = loss_weights(config.debias, train.train.labels, train.train.groups, weights)
    manifest = {
        **describe_experts(config.model_dump(), dataset),
        **(about or {}),
        "dataset_digest": dataset.digest(),
        "training_digest": input_digest(dataset, weights, groups),
        "experts": [None] * config.num_experts,
    }
    ranks.agree("experts", config, manifest["training_digest"], resume)
    lock = None

    def take() -> dict[str, Any]:
        nonlocal lock
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.WriteError(error.errno, f"cannot create the folder {path}: {error.strerror}") from error
        lock = hold(path)
        return _prepare(path, config, dataset, manifest, resume, str(device))

    try:
        manifest = ranks.first(take)
        todo = [number for number, entry in enumerate(manifest["experts"]) if entry is None]
        if todo:
            trainers = max(processes, ranks.world())
            job = Job(config, dataset, path, of_loss, str(device), groups, side_by_side, trainers)
            _train(job, todo, min(processes, len(todo)), manifest, progress)
        ranks.first(lambda: _remove_states(path))
        made = Experts.open(path)
        if todo:
            _tell_if_unmoved(made, config)
        return made
    finally:
        if lock is not None:
            lock.close()


def _prepare(
    path: Path, config: ExpertSettings, dataset: Dataset, manifest: dict[str, Any], resume: bool, device: str
) -> dict[str, Any]:
    """Make the folder that of this training; its manifest."""
    check_experts_out(path, resume)
    files.remove_partials(path)
    if (path / MANIFEST).exists():
        manifest = _continued(path, manifest)
    else:
        _begin(path, manifest, dataset, device)
    if not any(manifest["experts"]) and not (path / VALUES).exists():
        check_experts_room(path, manifest["config"], dataset)
        TrajectoryFile.create(path / VALUES, stored_shape(manifest), config.dtype)
    return manifest


def _tell_if_unmoved(experts: Experts, config: ExpertSettings) -> None:
    still = [n for n in range(experts.number) if not moved(experts.at(n, 0), experts.at(n, experts.epochs))]
    if still:
        cure = f"raise lr_teacher ({config.lr_teacher:g})"
        if experts.manifest["num_classes"] == 1:
            cure = "with one class a classifier has nothing to learn"
        warnings.warn(
            f"{len(still)} of {experts.number} experts end where they start, the first of them number {still[0]}, and "
            f"no student can follow them; {cure}",
            RuntimeWarning,
            stacklevel=3,
        )


def _remove_states(path: Path) -> None:
    for leftover in path.glob(STATE.format(0).replace("00000", "*")):
        leftover.unlink()


def _begin(path: Path, manifest: dict[str, Any], dataset: Dataset, device: torch.device | str) -> None:
    manifest["zca_digest"] = None
    if manifest["config"]["zca"]:
        zca = Zca.fit(dataset.train.images, device=device)
        zca.save(path / ZCA)
        manifest["zca_digest"] = zca.digest()
    # From here on the folder is that of this training.
    write_manifest(path, manifest)


def _continued(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest that is in the folder; ValueError unless it is of the same training."""
    found = _check_settings(path, manifest["config"])
    plugins.check_same(path, found.get("plugins"), manifest["config"])
    if found.get("training_digest") != manifest["training_digest"]:
        raise ValueError(
            f"{path} holds experts of other data of the name {found['dataset']!r}, or of other weights or groups"
        )
    return found


def check_experts_room(path: Path, config: Mapping[str, Any], dataset: Dataset, samples: int = 0) -> None:
    """TooSmallError where the disk has no space for the trajectories that a training makes, and its states.

    Args:
        path: the folder.
        config: the settings.
        dataset: the data set.
        samples: bytes of weights and groups that are kept beside.
    """
    manifest = {**describe_experts(config, dataset), "experts": [None] * config["num_experts"]}
    experts, rows, parameters = stored_shape(manifest)
    size = experts * rows * parameters * DTYPES[config["dtype"]][1].itemsize
    needed = size + 32 * parameters + samples - bytes_in(path)
    cures = ["make room, or store half of it with dtype bf16"] if config["dtype"] == "fp32" else []
    check_room(path, needed, f"the training of {experts} experts for {rows - 1} epochs", *cures)


class _Record:
    """What has been trained: the manifest and the epochs of every expert, as all ranks report; rank 0 writes it."""

    def __init__(
        self,
        job: Job,
        todo: list[int],
        manifest: dict[str, Any],
        progress: Callable[[ExpertProgress], None] | None,
    ):
        config = job.config
        self._job, self._manifest, self._progress, self._began = job, manifest, progress, time.perf_counter()
        self._total = config.num_experts * config.epochs
        self._epochs = {number: config.epochs for number in range(config.num_experts) if number not in todo}
        self._started = sum(self._epochs.values())
        self.messages = Messages()

    def report(self, message: dict[str, Any]) -> None:
        """Of an epoch: its expert, its number, and its loss; None before an expert's first of this start."""
        number, epoch = message["expert"], message["epoch"]
        if number not in self._epochs:
            self._started += epoch
        self._epochs[number] = epoch
        if self._progress is not None and message["loss"] is not None:
            seconds = time.perf_counter() - self._began
            done = sum(self._epochs.values())
            self._progress(ExpertProgress(done, self._total, number, message["loss"], self._started, seconds))

    def finish(self, number: int, entry: dict[str, Any]) -> None:
        """An expert is done, and this is its entry."""
        self._manifest["experts"][number] = entry
        write_manifest(self._job.path, self._manifest)
        (self._job.path / STATE.format(number)).unlink(missing_ok=True)

    def read(self) -> None:
        """What other ranks have said."""
        for message in self.messages.received():
            if "entry" in message:
                self.finish(message["expert"], message["entry"])
            else:
                self.report(message)

    def say(self, message: dict[str, Any]) -> None:
        """To the rank that writes, which may be this one."""
        self.messages.send(message)
        self.read()

    def left(self) -> str | None:
        """How far it is, if experts are not done."""
        done = sum(self._epochs.values())
        return f"{done} of {self._total} epochs" if None in self._manifest["experts"] else None


def _train(
    job: Job,
    todo: list[int],
    processes: int,
    manifest: dict[str, Any],
    progress: Callable[[ExpertProgress], None] | None,
) -> None:
    record = _Record(job, todo, manifest, progress)
    with stop_requests() as stop:
        if processes > 1:
            train_in_processes(job, todo, processes, record.report, record.finish, stop)
        else:
            _train_here(job, todo[ranks.rank() :: ranks.world()], record, stop)
        left = ranks.first(record.left)
        if left:
            raise KeyboardInterrupt(f"stopped after {left}; --resume continues")


def _train_here(job: Job, todo: list[int], record: _Record, stop: StopEvent) -> None:
    """Train this rank's experts, and meet the other ranks."""

    def stopping() -> bool:
        if stop.is_set():
            record.messages.ask_to_stop()
        return stop.is_set() or record.messages.stop_asked()

    if todo:
        trainer = SideBySideTrainer(job)
        for number, entry in trainer.entries(todo, record.say, stopping):
            if entry is None:
                break
            record.say({"expert": number, "entry": entry})
        trainer.close()
    ranks.meet(meanwhile=record.read)
    record.read()
