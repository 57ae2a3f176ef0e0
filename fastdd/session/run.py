"""The loop of a run."""

import hashlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastdd import models, ranks, rng
from fastdd._malloc import give_back
from fastdd.data import Dataset, SyntheticSet
from fastdd.data.trajectories import Trajectories
from fastdd.session.config import RunConfig
from fastdd.session.folder import EVALUATIONS, METRICS, SYNTHETIC, RunFolder, State
from fastdd.session.sets import check_ipc, describe, random_set, with_groups
from fastdd.session.stepper import make

# Losses wait on the device until there are this many, or for this long: reading each would stall it at every step.
_LOSSES_HELD, _LOSSES_HELD_SECONDS = 200, 1.0
# A synthetic image goes through the network forth and back, a real one forth.
_SYNTHETIC_COST = 3


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        step: matching steps done.
        total: matching steps of the run.
        loss: of the last step; NaN before the first of this start.
        seconds: spent in the loop so far, over all starts; evaluations do not count.
        evaluating: whether an evaluation begins, which takes its time.
    """

    step: int
    total: int
    loss: float
    seconds: float
    evaluating: bool = False


@dataclass(frozen=True)
class Curve:
    """Evaluations of the synthetic set while a run goes on. What the run makes does not depend on them.

    The set is evaluated before the first step, after every ``every`` iterations, and as it is at the end; not again
    where a run is resumed with the figures of an iteration in its folder.

    Attributes:
        every: iterations from one evaluation to the next.
        evaluate: the figures of a set, JSON-able; called on all ranks.
        progress: called with every row (``iteration``, those done, and the figures), on rank 0.
    """

    every: int
    evaluate: Callable[[SyntheticSet], Mapping[str, Any]]
    progress: Callable[[dict[str, Any]], None] | None = None


# A Ctrl-C reaches a rank from the terminal and from torchrun; a later one is meant to end what does not end.
_SAME_REQUEST_SECONDS = 2.0


class StopEvent(threading.Event):
    """Set when a run shall end; within :meth:`at_once` that is a KeyboardInterrupt."""

    raises = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that takes long, and of which nothing has to be kept."""
        self.raises = True
        try:
            if self.is_set():
                raise KeyboardInterrupt
            yield
        finally:
            self.raises = False


@contextmanager
def stop_requests() -> Iterator[StopEvent]:
    """An event that Ctrl-C or SIGTERM sets, so that a run ends between two steps, with a checkpoint.

    On a rank of a job, which may wait for another in vain, a second request ends it at once.
    """
    event = StopEvent()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    asked_at = 0.0

    def ask(*_) -> None:
        nonlocal asked_at
        if not event.is_set():
            asked_at = time.monotonic()
            event.set()
            if event.raises:
                raise KeyboardInterrupt
        elif ranks.world() > 1 and time.monotonic() - asked_at > _SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt("ended without a checkpoint; --resume continues from the one before")

    for number in old:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def input_digest(
    dataset: Dataset,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
    experts: Trajectories | None = None,
) -> str:
    """Of everything besides the configuration that decides a run."""
    arrays = [np.ascontiguousarray(values) for values in (weights, groups) if values is not None]
    extra = [a.dtype.str.encode() + a.tobytes() for a in arrays]
    if experts is not None:
        extra.append(experts.digest().encode())
    if not extra:
        return dataset.digest()
    return hashlib.sha256(b"".join([dataset.digest().encode(), *extra])).hexdigest()


def check_experts(config: RunConfig, dataset: Dataset, experts: Trajectories | None) -> None:
    """ValueError unless a run of mtt, and no other, has experts, of this data set and this debias mode."""
    if config.method != "mtt":
        if experts is not None:
            raise ValueError(f"experts are for method mtt, not {config.method}")
        return
    if experts is None:
        raise ValueError("method mtt needs the trajectories of experts (fastdd experts trains them)")
    about = experts.manifest
    theirs = (about["channels"], *about["size"], about["num_classes"])
    own = (dataset.channels, *dataset.size, dataset.num_classes)
    if theirs != own:
        raise ValueError(
            f"the experts learned {about['dataset']}, images of {list(theirs[:3])} in {theirs[3]} classes; "
            f"{dataset.name} has {list(own[:3])} in {own[3]}"
        )
    if about["dataset_digest"] not in (None, dataset.digest()):
        raise ValueError(f"the experts were trained on other data ({about['dataset']}) than this {dataset.name}")
    trained = about["config"]["debias"]
    if trained != config.debias:
        raise ValueError(
            f"the experts were trained with debias={trained}, not {config.debias}: mtt's debias is that of its experts"
        )


def _shares(config: RunConfig, dataset: Dataset) -> list[range] | None:
    """The classes of every rank, balanced by the images that a step takes; None in a process of its own."""
    if ranks.world() == 1:
        return None
    if config.method == "mtt":
        raise ValueError("mtt distils in one process; what ranks share is the training of its experts, and evaluation")
    if ranks.world() > dataset.num_classes:
        raise ValueError(
            f"{dataset.name} has {dataset.num_classes} classes, too few for {ranks.world()} ranks: start fewer"
        )
    real = np.bincount(dataset.train.labels, minlength=dataset.num_classes).clip(max=config.batch_real)
    return ranks.share((real + _SYNTHETIC_COST * config.ipc).tolist())


def _gather(rows: torch.Tensor, parts: list[range], ipc: int) -> None:
    ranks.collect(rows, [range(part.start * ipc, part.stop * ipc) for part in parts])


def run(
    config: RunConfig,
    dataset: Dataset,
    *,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    checkpoint_seconds: float = 30.0,
    progress: Callable[[Progress], None] | None = None,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    experts: Trajectories | None = None,
    about: Mapping[str, Any] | None = None,
    curve: Curve | None = None,
) -> SyntheticSet:
    """Distil ``dataset`` as ``config`` says.

    The ranks of a job share the classes of dm, dc and dsa. Those of dm do not talk in a step; those of dc and dsa pass
    on the images that each has updated before every training of the network. They meet about once a second, at a step
    that rank 0 names, to sum losses and to agree on checkpoints and on stopping. Rank 0 alone writes; all return the
    set. On CPUs, with this package's kernels and as many threads a rank, it has the same bits on any number of ranks,
    also if the number changes when the run is resumed; elsewhere it is the same to rounding, as logged losses are.

    Args:
        config: the run; ``config.dataset`` is only a label here.
        dataset: real images.
        out: run folder, for ``config.yaml``, ``metrics.jsonl``, ``evaluations.jsonl``, ``checkpoint.pt`` and
            ``synthetic.safetensors``; None writes nothing.
        resume: continue the run in ``out`` (or start it, if there is none). The result is bit-identical to that of an
            uninterrupted run on the same machine and thread count; more iterations than before extend the run.
        device: cpu or cuda.
        checkpoint_seconds: least time between two checkpoints.
        progress: called about once a second, and at the end, on rank 0.
        weights: [N], of the training images, for debias kde; at least 0, some above 0 in every class.
        groups: int64 [N], in place of the training images' protected attribute (clusters, for example), from 0.
        experts: for method mtt, trained on ``dataset`` with ``config.debias``.
        about: JSON-able, kept in the synthetic set's metadata besides what describes the run.
        curve: evaluations on the way; another start of the run may have others, or none.

    Returns:
        The synthetic set, on the CPU.

    Raises:
        ValueError: settings that do not fit the data, an ``out`` that belongs to another run, more ranks than classes,
            or several ranks for mtt.
        RuntimeError: a loss that is not finite, or a rank that is gone (:class:`fastdd.ranks.RankLost`); the last
            checkpoint stays.
        OSError: ``out`` can't be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint.
    """
    device = torch.device(device)
    check_ipc(dataset, config.ipc)
    check_experts(config, dataset, experts)
    if (weights is not None) != (config.debias == "kde" and config.method != "mtt"):
        raise ValueError(
            f"{config.method} with debias={config.debias} takes "
            f"{'no weights' if weights is not None else 'weights of the training images'}"
        )
    train = dataset if groups is None else with_groups(dataset, groups)
    zca = None if experts is None else experts.zca
    start = random_set(dataset, config.ipc, config.seed, zca)
    images = start.images
    if config.init == "noise":
        images = rng.normal(rng.key(config.seed, "noise-images"), images.numel()).view_as(images)
    parts = _shares(config, dataset)
    stepper = make(
        config,
        train,
        device,
        images,
        None if weights is None else torch.as_tensor(weights),
        experts,
        classes=None if parts is None else parts[ranks.rank()],
        gather=None if parts is None else lambda: _gather(stepper.images, parts, config.ipc),
    )
    total = config.iterations * stepper.per_iteration
    digest = input_digest(dataset, weights, groups, experts) if out is not None or parts is not None else None
    ranks.agree("distillation", config, digest, out is None, resume, checkpoint_seconds, curve and curve.every)

    folder = None

    def open_folder() -> tuple[State | None, set[int]]:
        nonlocal folder
        size = sum(tensor.nbytes for tensor in stepper.state().values()) + 2**16
        folder = RunFolder(out, config, digest, resume=resume, size=size)
        saved = folder.load() if resume else None
        if saved is not None and saved.step > total:
            done = saved.step // stepper.per_iteration
            raise ValueError(f"{out} has done {done} iterations, more than the {config.iterations} asked for")
        done = 0 if saved is None else saved.step
        folder.keep(METRICS, lambda row: row["step"] < done)
        kept = folder.keep(EVALUATIONS, lambda row: row["iteration"] * stepper.per_iteration <= done)
        return saved, {row["iteration"] for row in kept}

    step, seconds, evaluated = 0, 0.0, set()
    if out is not None:
        saved, evaluated = ranks.first(open_folder)
        if saved is not None:
            step, seconds = saved.step, saved.seconds
            stepper.restore(saved.tensors)

    began = saved_at = read_at = time.perf_counter()
    good, losses, loss = step, [], math.nan

    def read_losses() -> None:
        nonlocal read_at, losses, loss
        start = step - len(losses)
        values = torch.stack(losses).tolist()
        losses, read_at = [], time.perf_counter()
        for i, value in enumerate(values):
            trouble = stepper.trouble(start + i, value)
            if trouble is not None:
                kept = f" (the checkpoint of step {good} is kept)" if out is not None and good else ""
                raise RuntimeError(f"step {start + i}: {trouble}{kept}")
        spent = seconds + read_at - began
        if out is not None:
            rows = [{"step": start + i, "loss": value} for i, value in enumerate(values)]
            ranks.first(lambda: folder.log(METRICS, rows))
        loss = values[-1]
        if progress and ranks.rank() == 0:
            progress(Progress(step, total, loss, spent))

    def checkpoint() -> None:
        nonlocal good, saved_at
        if parts is not None:
            for rows in (stepper.images, stepper.momentum):
                _gather(rows, parts, config.ipc)
        if out is not None:
            if not torch.isfinite(stepper.images).all():
                raise RuntimeError(f"the images are not finite after step {step - 1}; lower lr_img ({config.lr_img})")
            spent = seconds + time.perf_counter() - began
            ranks.first(lambda: folder.save(State(step, stepper.state(), spent)))
            give_back()
            good, saved_at = step, time.perf_counter()

    def made() -> SyntheticSet:
        metadata = describe(
            dataset,
            zca=zca,
            method=config.method,
            debias=config.debias,
            run=config.model_dump(),
            ipc=config.ipc,
            seed=config.seed,
            **(about or {}),
        )
        return SyntheticSet(stepper.images.detach().cpu(), start.labels, metadata, **stepper.learned())

    def evaluation_due() -> bool:
        if curve is None or step // stepper.per_iteration in evaluated:
            return False
        return step == total or step % (curve.every * stepper.per_iteration) == 0

    def evaluate() -> None:
        nonlocal began, saved_at, read_at
        started, iteration = time.perf_counter(), step // stepper.per_iteration
        if progress and ranks.rank() == 0:
            progress(Progress(step, total, loss, seconds + started - began, evaluating=True))
        try:
            with stop.at_once():
                row = {"iteration": iteration, **curve.evaluate(made())}
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped after {step} of {total} steps, in the evaluation there") from None
        if out is not None:
            ranks.first(lambda: folder.log(EVALUATIONS, [row]))
        evaluated.add(iteration)
        if curve.progress and ranks.rank() == 0:
            curve.progress(row)
        spent = time.perf_counter() - started
        began, saved_at, read_at = began + spent, saved_at + spent, read_at + spent

    meeting = step + 1
    with stop_requests() as stop, models.exact_convolutions():
        if step < total and evaluation_due():
            evaluate()
        while step < total:
            losses.append(stepper.step(step))
            step += 1
            pause = evaluation_due()
            if parts is not None and step < min(meeting, total) and not pause:
                continue
            now = time.perf_counter()
            stopping, due = stop.is_set(), now - saved_at >= checkpoint_seconds
            read = len(losses) >= _LOSSES_HELD or now - read_at >= _LOSSES_HELD_SECONDS
            if parts is not None:
                own = torch.stack(losses).tolist()  # here a GPU catches up
                pace = (time.perf_counter() - read_at) / len(own)
                between = min(_LOSSES_HELD_SECONDS, checkpoint_seconds)
                meeting = step + max(1, min(_LOSSES_HELD, int(between / pace)))
                met = ranks.exchange((own, stopping, due, meeting))
                losses = [torch.tensor(sum(parts_of)) for parts_of in zip(*(theirs for theirs, *_ in met), strict=True)]
                stopping, (_, _, due, meeting), read = any(asked for _, asked, *_ in met), met[0], True
            done = step == total or stopping
            if done or due or read or pause:
                read_losses()
            # Before an evaluation too, which may take longer than all steps since the last checkpoint.
            if done or due or pause:
                checkpoint()
            if stopping and step < total:
                raise KeyboardInterrupt(f"stopped after {step} of {total} steps")
            if pause and step < total:
                evaluate()
        result = made()
        if out is not None:
            ranks.first(lambda: result.save(folder.path / SYNTHETIC))
        if evaluation_due():
            evaluate()
    return result
