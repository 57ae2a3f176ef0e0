"""The loop of a run."""

import contextlib
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdd import models
from fastdd.core import ranks
from fastdd.core.reading import damage_of
from fastdd.core.stop import StopEvent, stop_requests
from fastdd.data import Dataset, SyntheticSet, Zca
from fastdd.data.files.store import store_of
from fastdd.data.initial import INITS, check_ipc, describe, first_images, input_digest, small_classes
from fastdd.data.pictures import escaped
from fastdd.experts import Experts
from fastdd.methods import Context, DecoupledSettings, Settings, method
from fastdd.methods.base import moved
from fastdd.session.by_class import ClassRun
from fastdd.session.callbacks import Callback, Checkpoint, Log
from fastdd.session.folder import EVALUATIONS, METRICS, SYNTHETIC, RunFolder, State
from fastdd.session.networks import check_experts, check_networks

# Losses wait on the device until there are this many, or for this long: reading each would stall it at every step.
_LOSSES_HELD, _LOSSES_HELD_SECONDS = 200, 1.0
# A synthetic image goes through the network forth and back, a real one forth.
_SYNTHETIC_COST = 3


def check_samples(config: Settings, weights: object | None, groups: object | None) -> None:
    """ValueError unless a run has weights of the training images just where its mode needs them, and groups in place
    of the protected attribute only where they change something."""
    kind = method(config.method)
    if kind.takes("weights", config.mode) != (weights is not None):
        what = "no weights" if weights is not None else "weights of the training images"
        raise ValueError(f"{config.method} with debias={config.debias} takes {what}")
    check_groups(config, groups)


def check_groups(config: Settings, groups: object | None) -> None:
    """ValueError if groups are given in place of the protected attribute, and nothing of the run goes by groups."""
    used = method(config.method).takes("groups", config.mode) or getattr(config, "init", "") == "balanced"
    used = used or getattr(config, "sampling", None) == "stratified"
    if groups is not None and not used:
        raise ValueError(f"{config.method} with debias={config.debias} goes by no groups: leave them out")


class Run:
    """A distillation run: from its settings to a synthetic set, in steps that can be stopped and resumed.

    The ranks of a job share the classes, where a step of a class depends on no other. They meet about once a second, at
    a step that rank 0 names, to sum losses and to agree on checkpoints and on stopping; methods whose networks train on
    the synthetic images pass them on before that. Rank 0 alone writes; all return the set. On CPUs, with this package's
    kernels and as many threads a rank, it has the same bits on any number of ranks, also if the number changes when the
    run is resumed; elsewhere it is the same to rounding, as logged losses are.

    Args:
        config: the run; ``config.dataset`` is only a label here.
        dataset: real images.
        out: run folder, for ``config.yaml``, ``metrics.jsonl``, ``evaluations.jsonl``, ``checkpoint.pt`` and
            ``synthetic.safetensors``; None writes nothing.
        resume: continue the run in ``out`` (or start it, if there is none). The result is bit-identical to that of an
            uninterrupted run on the same machine and thread count; more iterations than before extend the run,
            but where its learning rate falls over them (:attr:`fastdd.methods.Settings.can_be_extended`).
        device: cpu or cuda.
        checkpoint_seconds: least time between two checkpoints.
        weights: [N], of the training images, for debias modes that need them; at least 0, some above 0 in every class.
        groups: int64 [N], in place of the training images' protected attribute (clusters, for example), from 0.
        initial: the first images, where ``config.init`` names a stored set (:func:`fastdd.data.initial.images_of_set`).
        experts: for methods that follow them, trained on ``dataset``, and for those whose debias mode is theirs with
            ``config.debias``.
        networks: trained ones, where ``config.networks`` names some (:func:`fastdd.session.networks.open_networks`).
        about: JSON-able, kept in the synthetic set's metadata besides what describes the run.
        callbacks: told where the run is; another start of the run may have others.

    Attributes:
        config, dataset, callbacks: as given.
        method: the method, with the images.
        out: path of the run's folder; None where nothing is written.
        folder: the folder itself, on rank 0.
        step, total: steps done, and of the run.
        steps_per_iteration: as it says.
        loss: of the last step that was read; NaN before the first of this start.
        saved_step: that of the last checkpoint.
        started_at: :meth:`clock` when this start began.
        evaluated: iterations whose figures are in the folder from an earlier start.
        stop: set when the run shall end.

    Raises:
        ValueError: settings that do not fit the data, an ``out`` that belongs to another run, more ranks than classes,
            or several ranks for a method whose steps need all classes.
        OSError: ``out`` can't be written.
    """

    stop: StopEvent

    def __init__(
        self,
        config: Settings,
        dataset: Dataset,
        *,
        out: str | os.PathLike | None = None,
        resume: bool = False,
        device: torch.device | str = "cpu",
        checkpoint_seconds: float = 30.0,
        weights: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        initial: torch.Tensor | None = None,
        experts: Experts | None = None,
        networks: Experts | None = None,
        about: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
    ):
        check_ipc(dataset, config.ipc, config.init)
        check_experts(config, dataset, experts)
        check_networks(config, dataset, networks)
        check_samples(config, weights, groups)
        self.config, self.dataset, self._about = config, dataset, dict(about or {})
        self._zca: Zca | None = None if experts is None else experts.zca
        self._parts = shares(config, dataset)
        train = dataset if groups is None else dataset.with_groups(groups)
        images = self._first_images(train) if initial is None else initial
        self._labels = torch.arange(dataset.num_classes).repeat_interleave(config.ipc)
        self.method = method(config.method)(
            config,
            Context(
                train,
                torch.device(device),
                images,
                None if weights is None else torch.as_tensor(weights),
                experts,
                classes=None if self._parts is None else self._parts[ranks.rank()],
                gather=None if self._parts is None else self._gather_images,
                networks=networks,
            ),
        )
        # Of what is stored: what is rounded on the way has not moved.
        self._start = self.method.formation.normalised(self.method.images.detach()).cpu().clone()
        self.step, self.total = 0, config.steps
        self.steps_per_iteration = self.total // config.iterations
        self.loss, self.saved_step = math.nan, 0
        self.evaluated: set[int] = set()
        written = [] if out is None else [Log(), Checkpoint(checkpoint_seconds)]
        self.callbacks = [*written, *callbacks]
        self.out, self._checkpoint_seconds = None if out is None else Path(out), checkpoint_seconds
        self._paused_seconds, self._earlier_seconds = 0.0, 0.0
        digest = None
        if out is not None or self._parts is not None:
            trained = experts or networks  # no method takes both
            digest = input_digest(dataset, weights, groups, trained and trained.digest(), initial)
        agreement = [list(callback.agreement) for callback in self.callbacks]
        ranks.agree("distillation", config, digest, out is None, resume, checkpoint_seconds, agreement)
        self.folder: RunFolder | None = None
        if out is not None:
            self._open(out, digest, resume)

    def __repr__(self) -> str:
        where = "" if self.out is None else f" in {self.out}"
        return f"Run({self.method!r}, step {self.step:,} of {self.total:,}{where})"

    def _repr_html_(self) -> str:
        """For notebooks: where it is, and the images as they are now."""
        return f"<p><b>{escaped(repr(self))}</b></p>{self.synthetic()._repr_html_()}"

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self.step // self.steps_per_iteration

    def clock(self) -> float:
        """Seconds that stand still in pauses, from some moment."""
        return time.perf_counter() - self._paused_seconds

    @property
    def seconds(self) -> float:
        """Spent in the loop so far, over all starts, without pauses."""
        return self._earlier_seconds + self.clock() - self.started_at

    def synthetic(self) -> SyntheticSet:
        """The set as it is now, on the CPU; of all ranks' classes in pauses and at checkpoints."""
        config = self.config
        metadata = describe(
            self.dataset,
            zca=self._zca,
            method=config.method,
            debias=config.debias,
            run=config.model_dump(),
            ipc=config.ipc,
            seed=config.seed,
            **self.method.formation.describe(),
            **self._about,
        )
        images = self.method.formation.normalised(self.method.images.detach())
        return SyntheticSet(images.cpu(), self._labels, metadata, **self.method.learned())

    def tell(self, what: str, *arguments: Any) -> None:
        """Call this method of all callbacks."""
        for callback in self.callbacks:
            getattr(callback, what)(self, *arguments)

    def go(self) -> SyntheticSet:
        """Do all steps that are left.

        Returns:
            The synthetic set, on the CPU.

        Raises:
            RuntimeError: a loss that is not finite, or a rank that is gone (:class:`fastdd.core.ranks.RankLost`); the
                last checkpoint stays.
            OSError: the folder can't be written.
            KeyboardInterrupt: Ctrl-C, SIGTERM or SIGUSR1, after a checkpoint.
        """
        self.started_at = self._read_at = self.clock()
        self._unread: list[torch.Tensor] = []
        self._meeting = self.step + 1
        with stop_requests() as self.stop, models.exact_convolutions(), self._told_of_its_end():
            if self.step < self.total and self._pauses():
                self._pause()
            while self.step < self.total:
                self._unread.append(self.method.step(self.step))
                self.step += 1
                pause = self._pauses()
                if self._parts is not None and self.step < min(self._meeting, self.total) and not pause:
                    continue
                self._settle(pause)
                if pause and self.step < self.total:
                    self._pause()
            result = self.synthetic()
            self._tell_if_unmoved(result)
            if self.out is not None:
                ranks.first(lambda: result.save(self.folder.path / SYNTHETIC))
            if self._pauses():
                self._pause()
        return result

    @contextlib.contextmanager
    def _told_of_its_end(self) -> Iterator[None]:
        self.tell("begins")
        try:
            yield
        finally:
            self.tell("ends")

    def _tell_if_unmoved(self, result: SyntheticSet) -> None:
        if self.total and not moved(self._start, result.images):
            cure = f"raise lr_img ({self.config.lr_img:g})"
            if self.dataset.num_classes == 1:
                cure = "with one class a classifier has nothing to learn, so that its gradients are 0: use method dm"
            warnings.warn(f"no synthetic image has changed in {self.total} steps; {cure}", RuntimeWarning, stacklevel=2)

    def _settle(self, pause: bool) -> None:
        """Between two steps: read losses, save, stop, as far as each is due. All ranks of a job decide alike."""
        wishes = [callback.wants_checkpoint(self) for callback in self.callbacks]
        stopping, save = self.stop.is_set(), any(wishes)
        read = len(self._unread) >= _LOSSES_HELD or self.clock() - self._read_at >= _LOSSES_HELD_SECONDS
        if self._parts is not None:
            stopping, save = self._meet(stopping, save)
            read = True
        done = self.step == self.total or stopping
        if done or save or read or pause:
            self._read_losses()
        # Before a pause too, which may take longer than all steps since the last checkpoint.
        if done or save or pause:
            self._checkpoint()
        if stopping and self.step < self.total:
            raise self.stopped()

    def stopped(self, where: str = "") -> KeyboardInterrupt:
        """What to raise where a stop was asked for; ``where``: what else to say of the place."""
        cure = "" if self.out is None else "; --resume continues"
        return KeyboardInterrupt(f"stopped after {self.step:,} of {self.total:,} steps{where}{cure}")

    def _meet(self, stopping: bool, save: bool) -> tuple[bool, bool]:
        """Sum the losses of all ranks, and agree on stopping, saving, and the step of the next meeting."""
        losses, reach = torch.stack(self._unread).tolist(), self.method.reach()  # here a GPU catches up
        pace = (self.clock() - self._read_at) / len(losses)
        between = min(_LOSSES_HELD_SECONDS, self._checkpoint_seconds)
        meeting = self.step + max(1, min(_LOSSES_HELD, int(between / pace)))
        met = ranks.exchange((losses, reach, stopping, save, meeting))
        self._reach = torch.tensor([theirs[1] for theirs in met]).max().item()  # NaN where one is
        self._unread = [torch.tensor(sum(of_step)) for of_step in zip(*(theirs for theirs, *_ in met), strict=True)]
        _, _, _, save, self._meeting = met[0]
        return any(asked for _, _, asked, *_ in met), save

    def _read_losses(self) -> None:
        first = self.step - len(self._unread)
        values = torch.stack(self._unread).tolist()
        self._unread, self._read_at = [], self.clock()
        for step, value in enumerate(values, first):
            self._stop_for(step, self.method.trouble(step, value))
        reach = self.method.reach() if self._parts is None else self._reach
        self._stop_for(self.step - 1, self.method.absurd(reach))
        self.loss = values[-1]
        self.tell("losses", first, values)

    def _stop_for(self, step: int, trouble: str | None) -> None:
        if trouble is not None:
            kept = f" (the checkpoint of step {self.saved_step} is kept)" if self.saved_step else ""
            raise RuntimeError(f"step {step}: {trouble}{kept}")

    def _checkpoint(self) -> None:
        if self._parts is not None:
            for rows in self.method.of_classes():
                self._gather(rows)
        self.tell("checkpoint")

    def _pauses(self) -> bool:
        return any(callback.pauses(self) for callback in self.callbacks)

    def _pause(self) -> None:
        with self._standing_still():
            for callback in self.callbacks:
                if callback.pauses(self):
                    callback.paused(self)

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._paused_seconds += time.perf_counter() - began

    def _first_images(self, train: Dataset) -> torch.Tensor:
        """What the run starts from, where it is no stored set; a class that is too small for it is told."""
        config = self.config
        if config.init not in INITS:
            raise ValueError(f"init {config.init} names a stored set: give its images (initial)")
        small = small_classes(self.dataset, config.ipc) if config.init in ("real", "balanced") else None
        if small is not None and ranks.rank() == 0:
            cure = "the rest of their first images is noise"
            warnings.warn(f"fewer training images than IPC {config.ipc}: {small}; {cure}", RuntimeWarning, stacklevel=2)
        return first_images(
            train if config.init == "balanced" else self.dataset,
            config.ipc,
            config.seed,
            config.init,
            self._zca,
            factor=getattr(config, "factor", 1),
            as_noise=lambda normal: method(config.method).noise(normal, self.dataset),
        )

    def _gather_images(self) -> None:
        self._gather(self.method.images)

    def _gather(self, rows: torch.Tensor) -> None:
        """Make the rows of all classes those of whoever changed them."""
        each = len(rows) // self.dataset.num_classes
        ranks.collect(rows, [range(part.start * each, part.stop * each) for part in self._parts])

    def _open(self, out: str | os.PathLike, digest: str, resume: bool) -> None:
        """Take the folder, on rank 0, and go on from what it holds, on all."""

        def take() -> tuple[State | None, set[int]]:
            size = sum(tensor.nbytes for tensor in self.method.state().values()) + 2**16
            self.folder = RunFolder(out, self.config, digest, resume=resume, size=size, store=store_of(self.dataset))
            saved = self.folder.load() if resume else None
            if saved is not None and saved.step > self.total:
                done = saved.step // self.steps_per_iteration
                raise ValueError(f"{out} has done {done} iterations, more than the {self.config.iterations} asked for")
            self.folder.describe()
            done = 0 if saved is None else saved.step
            self.folder.keep(METRICS, lambda row: row["step"] < done)
            kept = self.folder.keep(EVALUATIONS, lambda row: row["iteration"] * self.steps_per_iteration <= done)
            return saved, {row["iteration"] for row in kept}

        saved, self.evaluated = ranks.first(take)
        if saved is not None:
            self.step, self._earlier_seconds = saved.step, saved.seconds
            with damage_of(out, "can't be continued", ValueError):
                self.method.restore(saved.tensors)
            trouble = self.method.absurd(self.method.reach())
            if trouble is not None:
                raise RuntimeError(f"{out}: in its checkpoint of step {saved.step} {trouble}, in another folder")


def shares(config: Settings, dataset: Dataset) -> list[range] | None:
    """The classes of every rank, balanced by the images that a step takes; None in a process of its own.

    ValueError for more ranks than classes, or several for a method whose steps need all classes.
    """
    if ranks.world() == 1:
        return None
    if not method(config.method).classes_apart:
        raise ValueError(
            f"{config.method} distils in one process; what ranks share is the training of its experts, and evaluation"
        )
    if ranks.world() > dataset.num_classes:
        raise ValueError(
            f"{dataset.name} has {dataset.num_classes} classes, too few for {ranks.world()} ranks: start fewer"
        )
    most = getattr(config, "batch_real", len(dataset.train))  # of a registered method that draws none: all of them
    real = np.bincount(dataset.train.labels, minlength=dataset.num_classes).clip(max=most)
    return ranks.share((real + _SYNTHETIC_COST * config.ipc).tolist())


def run(config: Settings | DecoupledSettings, dataset: Dataset, **arguments: Any) -> SyntheticSet:
    """Distil ``dataset`` as ``config`` says: :class:`Run`, or of a method that makes classes one after another
    :class:`ClassRun`, with these arguments, from its start to its end."""
    kind = ClassRun if method(config.method).by_class else Run
    return kind(config, dataset, **arguments).go()
