"""The training of one expert: every epoch is stored, and a kill loses at most one."""

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdd import models
from fastdd.core import bounds, files, rng
from fastdd.core.reading import is_count, is_number
from fastdd.core.text import shown
from fastdd.data import Dataset, DeviceImages, Zca
from fastdd.evaluation import count_right
from fastdd.experts.settings import ExpertSettings
from fastdd.experts.store import VALUES, ZCA, TrajectoryFile
from fastdd.methods.dc import DIVERGED
from fastdd.methods.parts.training import train_epoch
from fastdd.training import Recipe, TrainingImages, start

# Of an expert that is not done, or not yet in the manifest.
STATE = "expert-{:05d}.pt"
_STATE_SCHEMA = 2


@dataclass(frozen=True)
class Job:
    """Everything that the training of a folder's experts depends on.

    Attributes:
        config: the settings.
        dataset: the training images, and the test images with their groups.
        path: the folder, with ``trajectories.npy`` and, if images are whitened, ``zca.safetensors``.
        weights: float32 [N], of the loss; None: all alike.
        device: where.
        groups: int64 [N], of the training images, in place of the data set's, for recipes; None: these.
        side_by_side: experts to train at a time, as one; None: on GPUs as many as fit, on CPUs one by itself.
        trainers: ranks or processes that share the experts.
    """

    config: ExpertSettings
    dataset: Dataset
    path: Path
    weights: np.ndarray | None
    device: str
    groups: np.ndarray | None = None
    side_by_side: int | None = None
    trainers: int = 1


@dataclass
class Expert:
    """Where the training of an expert is, besides the network's own state."""

    epoch: int
    recipe: Recipe | None  # None: plain training, with weights or without
    sgd: torch.optim.SGD
    sha256: "hashlib._Hash"
    losses: list[float] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def entry(self) -> dict[str, Any]:
        """Of a trained expert, for the manifest."""
        return {"sha256": self.sha256.hexdigest(), "seconds": self.seconds, "evaluations": self.evaluations}


class ExpertTrainer:
    """Trains the experts of a job, one after another. All images stay on the device: pixels, or whitened values.

    Attributes:
        config: the job's settings.
        net: of the expert that was last started or restored.
        images, labels, weights: of the training images, as :func:`fastdd.methods.parts.training.train_epoch` takes
            them.
    """

    def __init__(self, job: Job):
        config, dataset, device = job.config, job.dataset, torch.device(job.device)
        self.config, self._dataset, self._path = config, dataset, job.path
        self._build = partial(
            models.build,
            config.arch,
            dataset.channels,
            dataset.num_classes,
            dataset.size,
            width=config.width,
            depth=config.depth,
            device=device,
        )
        self.net = self._build()
        self._init = models.ParameterInit(self.net)
        zca = Zca.load(job.path / ZCA) if config.zca else None

        def read(images: np.ndarray) -> DeviceImages:
            return zca.read(images, device) if zca else DeviceImages.of(images, dataset.mean, dataset.std, device)

        self.images = read(dataset.train.images)
        self._test = read(dataset.test.images) if config.eval_every else None
        self.labels, self._test_labels, self._test_groups = (
            torch.as_tensor(values, device=device)
            for values in (dataset.train.labels, dataset.test.labels, dataset.test.groups)
        )
        self.weights = None if job.weights is None else torch.as_tensor(job.weights, device=device)
        self._of_recipe = None if config.training == "erm" else self._images_of_recipe(job.groups)
        self._shares = None
        if config.sampling == "weighted":
            sums = self.weights.cpu().double().cumsum(0)
            self._shares, self.weights = (sums / sums[-1]).to(device), None
        shape = config.num_experts, config.epochs + 1, len(self._init.flat)
        self._file = TrajectoryFile(job.path / VALUES, shape, config.dtype)

    def entries(
        self, numbers: Sequence[int], report: Callable[[dict[str, Any]], None], stop: Callable[[], bool]
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Train experts as :meth:`train` does each; every one's number and entry, None where it was stopped."""
        for number in numbers:
            yield number, self.train(number, report, stop)

    def train(
        self, number: int, report: Callable[[dict[str, Any]], None], stop: Callable[[], bool]
    ) -> dict[str, Any] | None:
        """Train expert ``number`` to its end, from its state if it has one.

        Args:
            number: the expert.
            report: called after every epoch, and before the first, with ``expert``, ``epoch`` (done) and ``loss``.
            stop: asked before every epoch.

        Returns:
            Its entry for the manifest; None if it was stopped. Its state stays in the folder either way.

        Raises:
            RuntimeError: it diverged.
            OSError: the folder can't be written.
        """
        config = self.config
        progress = self.start(number)
        losses = progress.losses
        report({"expert": number, "epoch": progress.epoch, "loss": losses[-1] if losses else None})
        while progress.epoch < config.epochs:
            if stop():
                return None
            began = time.perf_counter()
            loss = self._epoch(number, progress)
            self.conclude(number, progress, loss, began)
            report({"expert": number, "epoch": progress.epoch, "loss": losses[-1]})
        return progress.entry()

    def conclude(self, number: int, progress: Expert, loss: float, began: float, share: int = 1) -> None:
        """What follows an epoch, whose parameters :attr:`net` has: checks, a test where it is time for one, storage.

        Args:
            number: the expert's.
            progress: its own, as before the epoch.
            loss: of the epoch.
            began: when it did, on the clock of ``time.perf_counter``.
            share: of how many experts the time since is.

        Raises:
            RuntimeError: the expert diverged.
        """
        config, losses = self.config, progress.losses
        losses.append(loss)
        progress.epoch += 1
        self._check_finite(number, progress.epoch, losses)
        if config.eval_every and (progress.epoch % config.eval_every == 0 or progress.epoch == config.epochs):
            with models.exact_convolutions():
                progress.evaluations.append({"epoch": progress.epoch, "loss": loss, **self._evaluate()})
        progress.sha256.update(self._file.write(number, progress.epoch, self._init.flat))
        self._file.sync()
        progress.seconds += (time.perf_counter() - began) / share
        self._save(number, progress)

    def _epoch(self, number: int, progress: Expert) -> float:
        config, epoch = self.config, progress.epoch
        if decays_at(config, epoch):
            progress.sgd = self.optimiser(epoch, progress.recipe)
        recipe, key = progress.recipe, (config.seed, "expert", number, epoch)
        drawn = self.drawn_rows([number], epoch)
        with models.exact_convolutions():
            (self.net if recipe is None else recipe).train()
            return train_epoch(
                self.net,
                self.images,
                self.labels,
                progress.sgd,
                batch=config.batch_train,
                dsa_strategy=config.dsa_strategy,
                key=key,
                weights=self.weights,
                order=recipe.order(key) if recipe else None if drawn is None else drawn[0],
                loss_of=None if recipe is None else recipe.loss,
            ).item()

    def drawn_rows(self, numbers: Sequence[int], epoch: int) -> Tensor | None:
        """int64 [len(numbers), N], each expert's rows, drawn in proportion to their weights.

        The first whose share, with all before it, exceeds u < 1. None where images come in a random order.
        """
        if self._shares is None:
            return None
        keys = torch.tensor([rng.key(self.config.seed, "expert-draw", number, epoch) for number in numbers])
        u = (rng.bits(keys.to(self.labels.device), len(self.labels)) >> 11 & ((1 << 53) - 1)).double() * 2.0**-53
        return torch.searchsorted(self._shares, u, right=True)

    def close(self) -> None:
        self._file.close()

    def _images_of_recipe(self, groups: np.ndarray | None) -> TrainingImages:
        count = self._dataset.num_groups if groups is None else int(groups.max()) + 1
        groups = self._dataset.train.groups if groups is None else groups
        known = torch.as_tensor(groups, device=self.labels.device) if count > 1 else None
        return TrainingImages(
            self.images, self.labels, self._dataset.num_classes, known, count, self.config.dsa_strategy
        )

    def _recipe(self, number: int) -> Recipe | None:
        """The recipe of an expert at its start."""
        if self._of_recipe is None:
            return None
        config = self.config

        def another(name: str) -> models.Network:
            return self._build(key=rng.key(config.seed, f"expert-net-{name}", number))

        key = (config.seed, "expert-recipe", number)
        return start(config.training, self._of_recipe, self.net, another, key, config.constants)

    def optimiser(self, epoch: int, recipe: Recipe | None) -> torch.optim.SGD:
        """That of an epoch, with no momentum yet."""
        config = self.config
        return torch.optim.SGD(
            self.net.parameters() if recipe is None else recipe.parameters(),
            lr=learning_rate(config, epoch),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=self.labels.is_cuda or None,  # one launch
        )

    def start(self, number: int) -> Expert:
        """The network, and all else, as the expert's state has it, or fresh."""
        loaded = self._load(number)
        if loaded is not None:
            return loaded
        self._init.fill(rng.key(self.config.seed, "expert-net", number))
        sha = hashlib.sha256(self._file.write(number, 0, self._init.flat))
        recipe = self._recipe(number)
        return Expert(0, recipe, self.optimiser(0, recipe), sha)

    def _save(self, number: int, progress: Expert) -> None:
        # After the trajectory is on the disk: a state never speaks of epochs that are not stored.
        state = {
            "schema": _STATE_SCHEMA,
            "epoch": progress.epoch,
            "net": self.net.state_dict(),
            "sgd": progress.sgd.state_dict(),
            "losses": progress.losses,
            "evaluations": progress.evaluations,
            "seconds": progress.seconds,
            "sha256": progress.sha256.hexdigest(),
            **({} if progress.recipe is None else {"recipe": progress.recipe.state()}),
        }
        state = _on_host(state)  # once, for the digest and the file
        state["digest"] = _digest(state)
        files.write_atomic(self._path / STATE.format(number), lambda file: torch.save(state, file))

    def _load(self, number: int) -> Expert | None:
        """The expert as its state has it; None, with a warning, where that does not fit what is stored."""
        path = self._path / STATE.format(number)
        if not path.exists():
            return None
        try:
            if not path.is_file():
                raise ValueError("it is not a regular file")
            state = torch.load(path, weights_only=True, map_location="cpu")
            if state["schema"] != _STATE_SCHEMA:
                raise ValueError(f"it has schema {shown(state['schema'])}, this version reads {_STATE_SCHEMA}")
            if state["digest"] != _digest(state):
                raise ValueError("its digest does not match its content")
            sha = self._file.sha256(number, state["epoch"])
            if state["sha256"] != sha.hexdigest():
                raise ValueError(f"{VALUES} has other values than it says")
            return self._of_state(number, state, sha)
        except Exception as error:  # torch.load raises whatever its parser meets
            reason = files.reason(error)[:200]
            warnings.warn(f"{path} is not used, expert {number} starts again: {reason}", RuntimeWarning, stacklevel=2)
            return None

    def _of_state(self, number: int, state: dict[str, Any], sha: "hashlib._Hash") -> Expert:
        """The expert of a state; ValueError, or what torch raises, where it is none that training can have."""
        epoch, losses, evaluations = state["epoch"], state["losses"], state["evaluations"]
        counted = is_count(epoch) and 0 < epoch <= self.config.epochs and is_number(state["seconds"])
        if not counted or not isinstance(losses, list) or not all(map(is_number, losses)) or len(losses) != epoch:
            raise ValueError(f"it is of epoch {shown(epoch)} with the losses {shown(losses)}")
        if not isinstance(evaluations, list) or not all(isinstance(row, dict) for row in evaluations):
            raise ValueError(f"its evaluations are {shown(evaluations)}")
        self.net.load_state_dict(state["net"])
        recipe = self._recipe(number)
        if recipe is not None:
            recipe.restore(state["recipe"])
        sgd = self.optimiser(epoch - 1, recipe)
        sgd.load_state_dict(state["sgd"])
        tensors = [part for kept in sgd.state.values() for part in kept.values() if isinstance(part, Tensor)]
        if not all(part.isfinite().all() for part in (*tensors, *self.net.parameters())):
            raise ValueError("it has values that are not finite")
        return Expert(epoch, recipe, sgd, sha, losses, evaluations, state["seconds"])

    def _check_finite(self, number: int, epoch: int, losses: list[float]) -> None:
        """RuntimeError if the expert has diverged: it is not finite, or does ever worse than guessing.

        Recipes have losses of other sizes, that of the worst group say: theirs only may not be beyond all bounds.
        """
        chance = math.log(max(2, self._dataset.num_classes))
        bound = 2 * chance if self._of_recipe is None else DIVERGED
        lost = len(losses) > 1 and losses[-1] > losses[-2] > bound
        if lost or not (math.isfinite(losses[-1]) and self._init.flat.isfinite().all()):
            raise RuntimeError(
                f"expert {number} diverged in epoch {epoch} (loss {losses[-1]:.4g}, that of guessing {chance:.2f}); "
                f"lower lr_teacher ({self.config.lr_teacher:g})"
            )

    def _evaluate(self) -> dict[str, float | None]:
        counts = count_right(self.net, self._test, self._test_labels, self._test_groups, self._dataset)
        return {name: None if math.isnan(value) else value for name, value in asdict(counts.metrics()).items()}


def _on_host(part: Any) -> Any:
    """What a state holds, its tensors on the CPU."""
    if isinstance(part, dict):
        return {name: _on_host(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(map(_on_host, part))
    return part.cpu() if isinstance(part, Tensor) else part


def _digest(value: Any) -> str:
    """SHA-256 (hex) over all that a state holds, but its digest: names, numbers, and tensors with shape and type."""
    sha = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, dict):
            for name in sorted(part, key=str):
                if name != "digest":
                    sha.update(f"{name!r}:".encode())
                    add(part[name])
        elif isinstance(part, list | tuple):
            for one in part:
                add(one)
        elif isinstance(part, Tensor):
            if not bounds.is_plain(part):
                raise ValueError("it has tensors that are not plain values")
            sha.update(f"{part.dtype} {list(part.shape)}".encode())
            sha.update(part.detach().cpu().contiguous().numpy().tobytes())
        else:
            sha.update(f"{part!r};".encode())

    add(value)
    return sha.hexdigest()


def decays_at(config: ExpertSettings, epoch: int) -> bool:
    """Whether the learning rate falls before this epoch, and momentum starts again from zero."""
    return config.decay and epoch == config.epochs // 2 + 2


def learning_rate(config: ExpertSettings, epoch: int) -> float:
    """That of an epoch, from 0."""
    decayed = config.decay and epoch > config.epochs // 2 + 1
    return config.lr_teacher * (0.1 if decayed else 1.0)
