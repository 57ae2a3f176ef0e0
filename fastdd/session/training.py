"""The training of one network on real images, and fake ones: stages of epochs, which can be stopped and resumed."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastdd import models
from fastdd.core import files, rng
from fastdd.core.stop import stop_requests
from fastdd.data import Dataset, DeviceImages, Split, SyntheticSet
from fastdd.evaluation import METRICS as FIGURES
from fastdd.evaluation import GroupCounts, count_right
from fastdd.session.loggers import Series, numbers, open_series
from fastdd.session.trained import NETWORK, TrainedNetwork, save_network
from fastdd.session.training_folder import (
    CHECKPOINT,
    METRICS,
    check_train_out,
    check_train_room,
    open_train_folder,
)
from fastdd.training import TrainingImages, TrainSettings, draw_fakes, fake_counts, joined, recipe, start
from fastdd.training.trainer import Trainer

_SCHEMA = 1
# Bytes of an epoch's figures, in metrics.jsonl and in a checkpoint.
_ROW = 256


@dataclass(frozen=True)
class Stage:
    """What is trained on, by which recipe, for as many epochs as the settings say."""

    name: str
    data: TrainingImages
    training: str
    lr: float


def _mean_weights(trainer: Trainer) -> dict[str, dict[str, float]] | None:
    """Of bias-aligned and bias-conflicting images, the mean of each weight that the recipe finds; None for none."""
    weights, conflicting = trainer.recipe.image_weights(), trainer.recipe.data.conflicting
    if not weights or conflicting is None or not 0 < (number := int(conflicting.sum())) < len(conflicting):
        return None
    return {
        name: {
            "aligned": (each[~conflicting].sum() / (len(each) - number)).item(),
            "conflicting": (each[conflicting].sum() / number).item(),
        }
        for name, each in weights.items()
    }


def _logged(row: dict[str, Any]) -> dict[str, float]:
    """What loggers get of an epoch's row of history."""
    found = {"loss": row["loss"]}
    found |= {f"validation/{name}": row[name] for name in ("accuracy", "wa", "ba") if row.get(name) is not None}
    for name, means in row.get("weights", {}).items():
        found |= numbers(means, f"weights/{name}/")
    return found


def _write(series: Sequence[Series], kind: str, step: int, values: Mapping[str, float]) -> None:
    for one in series:
        one.write(kind, step, values)


class TrainingRun:
    """The training of a network, from its settings and images to figures on the test images; checked, and not begun.

    Args:
        config: settings.
        dataset: real images; its validation images choose the epoch, where it has some.
        fakes: fake images, for ``use`` other than none: images with groups, or for ffr a synthetic set, whole.
        fakes_from: where these are from, in words, for the record.
        weights: fills the network before training, and returns names of what it did not fill; None: a random start.
        weights_digest: of what ``weights`` reads.
        stages: which of ffr's two stages are done; ``2`` begins at ``weights``.
        device: cpu or cuda.

    Attributes:
        config, dataset: as given.
        fakes: how many fake images are trained on, int64 [C, G], or [C] where their groups are not known; None: none.
        stages: what is trained on, one after another.
        test, validation: those images; ``validation`` is None where there are none.
        net: the network, at its start.
        unfilled: names of what ``weights`` did not fill.

    Raises:
        ValueError: groups, validation images or fake images that the settings need are missing.
    """

    def __init__(
        self,
        config: TrainSettings,
        dataset: Dataset,
        *,
        fakes: Split | SyntheticSet | None = None,
        fakes_from: str = "",
        weights: Callable[[nn.Module], list[str]] | None = None,
        weights_digest: str = "",
        stages: str = "both",
        device: torch.device | str = "cpu",
    ):
        self.config, self.dataset = config, dataset
        self._device = torch.device(device)
        validation = dataset.validation
        self._check(validation, fakes)
        self.test, self.validation = self._read(dataset.test), validation and self._read(validation)
        self.fakes: np.ndarray | None = None
        self._fakes_from = fakes_from
        self.stages = self._plan(fakes, stages)
        net = self._network("net")
        self.unfilled = tuple(weights(net)) if weights is not None else ()
        self.net = net
        self._rows: list[dict[str, Any]] = []
        self._best: dict[str, Any] = {}
        self._lock = None
        self._out: Path | None = None
        self._given = fakes, weights_digest, stages

    def _check(self, validation: Split | None, fakes: Split | SyntheticSet | None) -> None:
        config, data, kind = self.config, self.dataset, recipe(self.config.training)
        if (config.use != "none") != (fakes is not None):
            what = "needs fake images" if fakes is None else "takes no fake images"
            raise ValueError(f"use={config.use} {what}")
        if isinstance(fakes, SyntheticSet) and config.use != "ffr":
            raise ValueError(
                f"use={config.use} counts fake images by group, which those of a synthetic set do not have"
            )
        if isinstance(fakes, SyntheticSet) and config.scale != 1:
            raise ValueError(f"scale {config.scale:g} counts fake images, and a synthetic set is trained on whole")
        if kind.needs_groups and data.num_groups < 2:
            raise ValueError(f"training {config.training} looks at groups, and {data.name} has one")
        if validation is None:
            if config.keep == "best" or kind.needs_validation:
                what = f"training {config.training}" if kind.needs_validation else "keep=best"
                raise ValueError(f"{what} needs validation images: data option validation=0.1 holds some out")
            return
        shape = data.num_classes, data.num_groups
        missing = np.argwhere((data.train.counts(*shape) > 0) & (validation.counts(*shape) == 0))
        if len(missing):
            y, b = missing[0]
            raise ValueError(
                f"no validation image is of class {data.class_names[y]!r}, group {data.group_names[b]!r}: "
                "the worst group can't be told; hold out more"
            )

    def _read(self, split: Split) -> TrainingImages:
        data, config = self.dataset, self.config
        return TrainingImages(
            DeviceImages.of(split.images, data.mean, data.std, self._device),
            torch.as_tensor(split.labels, device=self._device),
            data.num_classes,
            torch.as_tensor(split.groups, device=self._device) if data.num_groups > 1 else None,
            data.num_groups,
            config.dsa_strategy,
        )

    def _plan(self, fakes: Split | SyntheticSet | None, stages: str) -> list[Stage]:
        config, data = self.config, self.dataset
        real = Stage("real", self._read(data.train), config.training, config.lr)
        if config.use == "none" or fakes is None:
            return [real]
        if isinstance(fakes, SyntheticSet):
            of_fakes = TrainingImages(
                DeviceImages(fakes.images.to(self._device)),
                fakes.targets.to(self._device),
                data.num_classes,
                dsa_strategy=config.dsa_strategy,
            )
            self.fakes = np.bincount(fakes.labels.numpy(), minlength=data.num_classes)
        else:
            wanted = fake_counts(data.train.counts(data.num_classes, data.num_groups), config.use, config.scale)
            names = data.class_names, data.group_names
            drawn = draw_fakes(fakes, wanted, names, rng.key(config.seed, "fake-images"))
            self.fakes = wanted
            if config.use != "ffr":
                both = self._read(joined(data.train, drawn, data.num_groups))
                both = replace(both, num_groups=2 * data.num_groups)
                return [replace(real, name="real and fake", data=both)]
            of_fakes = self._read(drawn)
        first = Stage("fake", of_fakes, "erm", config.pretrain_lr or config.lr)
        return {"both": [first, real], "1": [first], "2": [real]}[stages]

    def _network(self, name: str) -> models.Network:
        config, data = self.config, self.dataset
        return models.build(
            config.arch,
            data.channels,
            data.num_classes,
            data.size,
            width=config.width,
            depth=config.depth,
            key=rng.key(config.seed, f"train-{name}"),
            device=self._device,
        )

    def trainer(self, number: int, images: int | None = None, net: models.Network | None = None) -> Trainer:
        """Of a stage: of so many of its images, evenly spread, or of all; of the run's network, or another."""
        config, stage = self.config, self.stages[number]
        if images is not None:
            stage = replace(stage, data=stage.data.spread(images))
        key = (config.seed, f"train-{stage.name}")
        constants = config.constants if stage.training == config.training else {}
        begun = start(stage.training, stage.data, net or self.net, self._network, key, constants)
        frozen = config.freeze_norms and stage.name == "real"
        return Trainer(begun, config, stage.lr, key, freeze_norms=frozen)

    def check(self, out: Path, resume: bool = False) -> None:
        """That :meth:`run` can have the folder ``out``; nothing is written.

        Raises:
            ValueError: it holds something else, or a network that is not to be continued.
            OSError: it can't be written, or the disk has too little space for the network and its checkpoint.
        """
        check_train_out(out, resume, self.config, self._inputs)
        check_train_room([out], self.bytes_of_folder())

    def run(
        self,
        out: Path | None = None,
        *,
        resume: bool = False,
        log: Sequence[str] = (),
        progress: Callable[[int, int, dict[str, Any]], None] | None = None,
    ) -> TrainedNetwork:
        """Train, and test.

        Args:
            out: folder for ``config.yaml``, ``metrics.jsonl``, ``checkpoint.pt`` and ``network.safetensors``; None
                writes nothing.
            resume: continue what ``out`` holds, to the same bits; start if there is nothing.
            log: loggers (:data:`fastdd.session.loggers.LOGGERS`) that get every epoch's figures, in ``out``.
            progress: called after every epoch with (epochs done, epochs, the epoch's row of history).

        Raises:
            ValueError, OSError: as :meth:`check`.
            RuntimeError: the network diverged, or a checkpoint that can't be read.
            KeyboardInterrupt: it was asked to stop; what is done is kept.
        """
        series: list[Series] = []
        if out is not None:
            self.check(out, resume)
            self._out = out
            about = {"data": self.dataset.provenance} | ({"fakes": self._fakes_from} if self._fakes_from else {})
            self._lock = open_train_folder(out, resume, self.config, self._inputs, about)
            series = open_series(log, out, self.config.model_dump())
        try:
            trained = self._trained(series, progress)
            reached = {name: getattr(trained.metrics(), name) for name in FIGURES}
            defined = {name: value for name, value in reached.items() if math.isfinite(value)}
            _write(series, "result", len(self._rows), numbers(defined, "result/"))
            return trained
        finally:
            for one in series:
                one.close()

    def _trained(
        self, series: list[Series], progress: Callable[[int, int, dict[str, Any]], None] | None
    ) -> TrainedNetwork:
        config = self.config
        trainer = self.trainer(stage := 0)
        epoch = 0
        loaded = self._load()
        if loaded is not None:
            stage, epoch = loaded["stage"], loaded["epoch"]
            trainer = self.trainer(stage)
            trainer.restore(loaded["trainer"])
            self._best, self._rows = loaded["best"], loaded["rows"]
            for number, row in enumerate(self._rows, 1):
                _write(series, METRICS, number, _logged(row))
        with stop_requests() as stop:
            while True:
                while epoch < config.epochs:
                    if stop.is_set():
                        raise KeyboardInterrupt(f"stopped after {len(self._rows)} epochs; --resume continues")
                    self._epoch(trainer, stage, epoch)
                    if progress is not None:
                        progress(len(self._rows), len(self.stages) * config.epochs, self._rows[-1])
                    epoch += 1
                    self._save(trainer, stage, epoch)
                    _write(series, METRICS, len(self._rows), _logged(self._rows[-1]))
                if stage + 1 == len(self.stages):
                    break
                stage, epoch = stage + 1, 0
                self.net.load_state_dict(self._best["network"])
                self._best = {}
                trainer = self.trainer(stage)
        return self._finished(trainer)

    def _epoch(self, trainer: Trainer, stage: int, epoch: int) -> None:
        config, name = self.config, self.stages[stage].name
        began = time.perf_counter()
        loss = trainer.epoch(epoch).item()
        row: dict[str, Any] = {"stage": name, "epoch": epoch + 1, "loss": loss}
        if not math.isfinite(loss):
            raise RuntimeError(
                f"the network diverged in epoch {epoch + 1} on {name} images (loss {loss:.4g}); "
                f"lower lr ({self.stages[stage].lr:g})"
            )
        predictor = trainer.recipe.predictor()
        score = None
        if self.validation is not None:
            figures = self.count(predictor, self.validation).metrics()
            row |= {name: getattr(figures, name) for name in ("accuracy", "wa", "ba")}
            score = figures.wa, figures.ba
        if (weights := _mean_weights(trainer)) is not None:
            row["weights"] = weights
        row["seconds"] = time.perf_counter() - began
        self._rows.append(row)
        if config.keep == "last" or score is None or not self._best or score > tuple(self._best["score"]):
            state = {key: value.detach().clone() for key, value in predictor.state_dict().items()}
            self._best = {"epoch": epoch + 1, "score": list(score or ()), "network": state}

    def count(self, net: nn.Module, images: TrainingImages) -> GroupCounts:
        """What a network gets right of images."""
        groups = torch.zeros_like(images.labels) if images.groups is None else images.groups
        with models.exact_convolutions():
            return count_right(net, images.images, images.labels, groups, self.dataset)

    def _finished(self, trainer: Trainer) -> TrainedNetwork:
        begun = trainer.recipe
        begun.predictor().load_state_dict(self._best["network"])
        if begun.needs_validation:
            begun.finish(self.validation)
        net = begun.predictor().eval()
        result = TrainedNetwork(
            net,
            self.config,
            self.count(net, self.test),
            self._best["epoch"],
            tuple(self._rows),
            self.fakes,
            self.dataset.tested_on,
            begun.name,
            self.unfilled,
            self._fakes_from,
        )
        if self._out is not None:
            save_network(self._out / NETWORK, result, self.dataset)
        return result

    @cached_property
    def _inputs(self) -> str:
        """SHA-256 of everything besides the settings that decides the network."""
        fakes, weights, stages = self._given
        sha = hashlib.sha256(f"{self.dataset.digest()} {weights} {stages}".encode())
        if fakes is not None:
            targets = fakes.targets if isinstance(fakes, SyntheticSet) else fakes.labels
            for array in (fakes.images, targets):
                sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def bytes_of_folder(self) -> int:
        """What its folder takes at most: a checkpoint, another while it is written, the network, and the log."""
        recipe = self.trainer(len(self.stages) - 1).recipe
        kept = [*recipe.predictor().state_dict().values()]
        trained = [*recipe.parameters()] * (2 if self.config.optimiser == "adam" else 1)
        tensors = [*self.net.state_dict().values(), *kept, *trained]
        checkpoint = recipe.bytes() + sum(tensor.nbytes for tensor in tensors)
        rows = len(self.stages) * self.config.epochs * _ROW
        return 2 * checkpoint + sum(tensor.nbytes for tensor in kept) + 2 * rows + 2**16

    def _save(self, trainer: Trainer, stage: int, epoch: int) -> None:
        if self._out is None:
            return
        state = {
            "schema": _SCHEMA,
            "stage": stage,
            "epoch": epoch,
            "trainer": trainer.state(),
            "best": self._best,
            "rows": self._rows,
        }
        files.write_atomic(self._out / CHECKPOINT, lambda file: torch.save(state, file))
        files.write_text(self._out / METRICS, "".join(json.dumps(row) + "\n" for row in self._rows))

    def _load(self) -> dict[str, Any] | None:
        if self._out is None or not (self._out / CHECKPOINT).exists():
            return None
        path = self._out / CHECKPOINT
        try:
            state = torch.load(path, weights_only=True, map_location=self._device)
            if state["schema"] != _SCHEMA:
                raise ValueError(f"it has schema {state['schema']}, this version reads {_SCHEMA}")
            return state
        except Exception as error:  # torch.load raises whatever its parser meets
            raise RuntimeError(f"{path} can't be read: {files.reason(error)}; take it away to start again") from None
