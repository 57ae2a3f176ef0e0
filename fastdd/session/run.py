"""The loop of a run."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fastdd import models, ops, rng
from fastdd.data import Dataset, DeviceImages, Sampler, SyntheticSet
from fastdd.debias import Batch, mode
from fastdd.methods import dm
from fastdd.session.config import RunConfig
from fastdd.session.folder import SYNTHETIC, RunFolder, State
from fastdd.session.sets import check_ipc, describe, random_set

# Losses wait on the device until there are this many, or for this long: reading each would stall it at every step.
_LOSSES_HELD, _LOSSES_HELD_SECONDS = 200, 1.0


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        step: steps done.
        total: steps of the run.
        loss: of the last step.
        seconds: spent in the loop so far, over all starts.
    """

    step: int
    total: int
    loss: float
    seconds: float


class Stepper:
    """One step of a method after another, on images that it holds.

    Args:
        config: the run.
        dataset: its train split is matched.
        device: where.
        images: float32 [C * IPC, channels, H, W], normalised, class-major; copied.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, device: torch.device, images: Tensor):
        self._config = config
        self._segments = mode(config.debias)
        self._num_classes, self._num_groups = dataset.num_classes, dataset.num_groups
        self._real = DeviceImages.of(dataset.train.images, dataset.mean, dataset.std, device)
        self._groups = torch.as_tensor(dataset.train.groups, device=device)
        self._sampler = Sampler(
            torch.as_tensor(dataset.train.labels),
            torch.as_tensor(dataset.train.groups),
            dataset.num_classes,
            dataset.num_groups,
            config.batch_real,
            mode=config.sampling,
            device=device,
        )
        net = models.build(
            config.arch,
            dataset.channels,
            dataset.num_classes,
            dataset.size,
            width=config.width,
            depth=config.depth,
            device=device,
        )
        self._net = net.train().requires_grad_(False)
        self._init = models.ParameterInit(self._net)
        self.images = images.to(device, copy=True).requires_grad_()
        self.momentum = torch.zeros_like(images, device=device)

    def step(self, number: int) -> Tensor:
        """Do step ``number``: a fresh network, a batch, an augmentation, one update. Returns its loss, a scalar."""
        seed = self._config.seed
        self._init.fill(rng.key(seed, "net", number))
        rows = self._sampler.draw(rng.key(seed, "batch", number))
        batch = Batch(rows, self._sampler.classes, self._groups[rows], self._num_classes, self._num_groups)
        keys = rng.lanes(rng.key(seed, "dsa", number), self._num_classes, rows.device)
        params = ops.dsa_params(self._config.dsa_strategy, keys, self._real.size)
        loss = dm.loss(self._net, self._real, self._segments(batch), self.images, params, self._config.precision)
        (gradient,) = torch.autograd.grad(loss, self.images)
        with torch.no_grad():
            self.momentum.mul_(self._config.momentum).add_(gradient)
            self.images.sub_(self.momentum, alpha=self._config.lr_img)
        return loss.detach()


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that a run ends between two steps, with a checkpoint."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in old:
        signal.signal(number, lambda *_: event.set())
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def run(
    config: RunConfig,
    dataset: Dataset,
    *,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    checkpoint_seconds: float = 30.0,
    progress: Callable[[Progress], None] | None = None,
) -> SyntheticSet:
    """Distil ``dataset`` as ``config`` says.

    Args:
        config: the run; ``config.dataset`` is only a label here.
        dataset: real images.
        out: run folder, for ``config.yaml``, ``metrics.jsonl``, ``checkpoint.pt`` and ``synthetic.safetensors``; None
            writes nothing.
        resume: continue the run in ``out`` (or start it, if there is none). The result is bit-identical to that of an
            uninterrupted run on the same machine and thread count; more iterations than before extend the run.
        device: cpu or cuda.
        checkpoint_seconds: least time between two checkpoints.
        progress: called about once a second, and at the end.

    Returns:
        The synthetic set, on the CPU.

    Raises:
        ValueError: settings that do not fit the data, or an ``out`` that belongs to another run.
        RuntimeError: a loss that is not finite; the last checkpoint stays.
        OSError: ``out`` can't be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint.
    """
    device = torch.device(device)
    check_ipc(dataset, config.ipc)
    start = random_set(dataset, config.ipc, config.seed)
    images = start.images
    if config.init == "noise":
        images = rng.normal(rng.key(config.seed, "noise-images"), images.numel()).view_as(images)
    stepper = Stepper(config, dataset, device, images)

    folder, step, seconds = None, 0, 0.0
    if out is not None:
        size = 8 * images.numel() + 2**16
        folder = RunFolder(out, config, dataset.digest(), resume=resume, size=size)
        saved = folder.load() if resume else None
        if saved is not None:
            if saved.step > config.iterations:
                raise ValueError(f"{out} has done {saved.step} iterations, more than the {config.iterations} asked for")
            step, seconds = saved.step, saved.seconds
            with torch.no_grad():
                stepper.images.copy_(saved.images)
            stepper.momentum.copy_(saved.momentum)
        folder.keep_metrics(step)

    began = saved_at = read_at = time.perf_counter()
    good, losses = step, []

    def read_losses() -> None:
        nonlocal read_at, losses
        if not losses:
            return
        first = step - len(losses)
        values = torch.stack(losses).tolist()
        losses, read_at = [], time.perf_counter()
        for i, value in enumerate(values):
            if not math.isfinite(value):
                kept = f"; the checkpoint of step {good} is kept" if folder and good else ""
                raise RuntimeError(f"the loss of step {first + i} is {value}{kept}; lower lr_img ({config.lr_img})")
        spent = seconds + read_at - began
        if folder:
            folder.log([{"step": first + i, "loss": value} for i, value in enumerate(values)])
        if progress:
            progress(Progress(step, config.iterations, values[-1], spent))

    def checkpoint() -> None:
        nonlocal good, saved_at
        if folder:
            if not torch.isfinite(stepper.images).all():
                raise RuntimeError(f"the images are not finite after step {step - 1}; lower lr_img ({config.lr_img})")
            spent = seconds + time.perf_counter() - began
            folder.save(State(step, stepper.images, stepper.momentum, spent))
            good, saved_at = step, time.perf_counter()

    with _stop_requests() as stop, models.exact_convolutions():
        while step < config.iterations:
            losses.append(stepper.step(step))
            step += 1
            now = time.perf_counter()
            stopping = stop.is_set()
            done = step == config.iterations or stopping
            due = now - saved_at >= checkpoint_seconds
            if done or due or len(losses) >= _LOSSES_HELD or now - read_at >= _LOSSES_HELD_SECONDS:
                read_losses()
            if done or due:
                checkpoint()
            if stopping and step < config.iterations:
                raise KeyboardInterrupt(f"stopped after {step} of {config.iterations} iterations")

    metadata = describe(
        dataset, method=config.method, debias=config.debias, run=config.model_dump(), ipc=config.ipc, seed=config.seed
    )
    result = SyntheticSet(stepper.images.detach().cpu(), start.labels, metadata)
    if folder:
        result.save(folder.path / SYNTHETIC)
    return result
