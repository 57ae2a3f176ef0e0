"""The training of one network on real images, and fake ones: stages of epochs, which can be stopped and resumed."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from fastdd import models
from fastdd.core import bounds, files, plugins, reading, rng
from fastdd.core.space import bytes_in, check_room
from fastdd.core.stop import stop_requests
from fastdd.core.version import __version__
from fastdd.data import Dataset, DeviceImages, Split, SyntheticSet
from fastdd.evaluation import GroupCounts, count_right
from fastdd.session.trained import NETWORK, TrainedNetwork, save_network
from fastdd.training import TrainingImages, TrainSettings, draw_fakes, fake_counts, joined, recipe, start
from fastdd.training.trainer import Trainer

CONFIG, METRICS, CHECKPOINT = "config.yaml", "metrics.jsonl", "checkpoint.pt"
# What every row of the log has.
FIELDS = {"epoch": reading.is_count, "loss": reading.is_number}
_SCHEMA = 1
# Bytes of an epoch's figures, in metrics.jsonl and in a checkpoint.
_ROW = 256


@dataclass(frozen=True)
class _Stage:
    name: str
    data: TrainingImages
    training: str
    lr: float


def check_train_out(path: str | os.PathLike, resume: bool, config: TrainSettings | None = None) -> None:
    """ValueError if the folder ``path`` holds a network that is not to be continued, or files of something else."""
    path = Path(path)
    if (path / CONFIG).exists():
        if not resume:
            raise ValueError(f"{path} already holds a network; continue it with --resume or choose another --out")
        if config is not None:
            _check_same(path, config)
    elif path.is_dir():
        stray = files.entries(path, (".lock",))
        if stray:
            raise ValueError(f"{path} is not empty and holds no network (it has {stray[0]!r}); give an empty folder")


def read_config(path: Path) -> tuple[TrainSettings, dict[str, Any]]:
    """The settings in a folder, and what else it says of its training; ValueError where it is none."""
    try:
        header = bounds.load_yaml((path / CONFIG).read_text(encoding="utf-8"))
        if isinstance(header, dict):
            plugins.recall(header.get("plugins"))
        config = TrainSettings.model_validate(header["train"])
        if not isinstance(header["inputs"], str) or not isinstance(header["about"], dict):
            raise TypeError("inputs and about are missing")
        return config, header
    except (ValueError, KeyError, TypeError, OSError, yaml.YAMLError) as error:
        text = str(error).splitlines()
        raise ValueError(f"{path / CONFIG} is not the configuration of a training: {text[0] if text else ''}") from None


def _check_same(path: Path, config: TrainSettings, inputs: str | None = None) -> None:
    found, header = read_config(path)
    for name, value in config.model_dump().items():
        other = getattr(found, name)
        if other != value:
            raise ValueError(f"{path} holds a network trained with {name}={other}, not {value}; choose another --out")
    plugins.check_same(path, header.get("plugins"), config.model_dump())
    if inputs is not None and header["inputs"] != inputs:
        raise ValueError(f"{path} holds a network trained on other images or from other weights; choose another --out")


def check_train_room(folders: Sequence[Path], size: int) -> None:
    """TooSmallError where the disk has no space for so many folders, of ``size`` bytes each at the end."""
    check_room(folders[0], len(folders) * size - sum(map(bytes_in, folders)), "the training")


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


class TrainingRun:
    """The training of a network, from its settings and images to figures on the test images.

    Args:
        config: settings.
        dataset: real images; its validation images choose the epoch, where it has some.
        fakes: fake images, for ``use`` other than none: images with groups, or for ffr a synthetic set, whole.
        fakes_from: where these are from, in words, for the record.
        weights: fills the network before training, and returns names of what it did not fill; None: a random start.
        weights_digest: of what ``weights`` reads.
        stages: which of ffr's two stages are done; ``2`` begins at ``weights``.
        out: folder for ``config.yaml``, ``metrics.jsonl``, ``checkpoint.pt`` and ``network.safetensors``; None writes
            nothing.
        resume: continue what ``out`` holds, to the same bits; start if there is nothing.
        device: cpu or cuda.
        progress: called after every epoch with (epochs done, epochs, the epoch's row of history).

    Raises:
        ValueError: before any training: groups, validation images or fake images that the settings need are missing,
            or an ``out`` that holds something else.
        OSError: ``out`` can't be written, or the disk has too little space for the network and its checkpoint.
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
        out: str | os.PathLike | None = None,
        resume: bool = False,
        device: torch.device | str = "cpu",
        progress: Callable[[int, int, dict[str, Any]], None] | None = None,
    ):
        self.config, self.dataset, self._progress = config, dataset, progress
        self._device, self._out = torch.device(device), None if out is None else Path(out)
        validation = dataset.validation
        self._check(validation, fakes)
        self._test, self._validation = self._read(dataset.test), validation and self._read(validation)
        self.fakes: np.ndarray | None = None
        self._fakes_from = fakes_from
        self._stages = self._plan(fakes, stages)
        net = self._network("net")
        self.unfilled = tuple(weights(net)) if weights is not None else ()
        self._net = net
        self._rows: list[dict[str, Any]] = []
        self._best: dict[str, Any] = {}
        self._lock = None
        self._inputs = self._digest(fakes, weights_digest, stages)
        if self._out is not None:
            self._open(resume)

    def _check(self, validation: Split | None, fakes: Split | SyntheticSet | None) -> None:
        config, data, kind = self.config, self.dataset, recipe(self.config.training)
        if (config.use != "none") != (fakes is not None):
            what = "needs fake images" if fakes is None else "takes no fake images"
            raise ValueError(f"use={config.use} {what}")
        if isinstance(fakes, SyntheticSet) and config.use != "ffr":
            raise ValueError(
                f"use={config.use} counts fake images by group, which those of a synthetic set do not have"
            )
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

    def _plan(self, fakes: Split | SyntheticSet | None, stages: str) -> list[_Stage]:
        config, data = self.config, self.dataset
        real = _Stage("real", self._read(data.train), config.training, config.lr)
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
        first = _Stage("fake", of_fakes, "erm", config.pretrain_lr or config.lr)
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

    def _trainer(self, number: int) -> Trainer:
        config, stage = self.config, self._stages[number]
        key = (config.seed, f"train-{stage.name}")
        constants = config.constants if stage.training == config.training else {}
        begun = start(stage.training, stage.data, self._net, self._network, key, constants)
        frozen = config.freeze_norms and stage.name == "real"
        return Trainer(begun, config, stage.lr, key, freeze_norms=frozen)

    def run(self) -> TrainedNetwork:
        """Train, and test. KeyboardInterrupt when it is asked to stop; what is done is kept."""
        config = self.config
        trainer = self._trainer(stage := 0)
        epoch = 0
        loaded = self._load()
        if loaded is not None:
            stage, epoch = loaded["stage"], loaded["epoch"]
            trainer = self._trainer(stage)
            trainer.restore(loaded["trainer"])
            self._best, self._rows = loaded["best"], loaded["rows"]
        with stop_requests() as stop:
            while True:
                while epoch < config.epochs:
                    if stop.is_set():
                        raise KeyboardInterrupt(f"stopped after {len(self._rows)} epochs; --resume continues")
                    self._epoch(trainer, stage, epoch)
                    epoch += 1
                    self._save(trainer, stage, epoch)
                if stage + 1 == len(self._stages):
                    break
                stage, epoch = stage + 1, 0
                self._net.load_state_dict(self._best["network"])
                self._best = {}
                trainer = self._trainer(stage)
        return self._finished(trainer)

    def _epoch(self, trainer: Trainer, stage: int, epoch: int) -> None:
        config, name = self.config, self._stages[stage].name
        began = time.perf_counter()
        loss = trainer.epoch(epoch).item()
        row: dict[str, Any] = {"stage": name, "epoch": epoch + 1, "loss": loss}
        if not math.isfinite(loss):
            raise RuntimeError(
                f"the network diverged in epoch {epoch + 1} on {name} images (loss {loss:.4g}); "
                f"lower lr ({self._stages[stage].lr:g})"
            )
        predictor = trainer.recipe.predictor()
        score = None
        if self._validation is not None:
            figures = self._count(predictor, self._validation).metrics()
            row |= {name: getattr(figures, name) for name in ("accuracy", "wa", "ba")}
            score = figures.wa, figures.ba
        if (weights := _mean_weights(trainer)) is not None:
            row["weights"] = weights
        row["seconds"] = time.perf_counter() - began
        self._rows.append(row)
        if config.keep == "last" or score is None or not self._best or score > tuple(self._best["score"]):
            state = {key: value.detach().clone() for key, value in predictor.state_dict().items()}
            self._best = {"epoch": epoch + 1, "score": list(score or ()), "network": state}
        if self._progress is not None:
            self._progress(len(self._rows), len(self._stages) * config.epochs, row)

    def _count(self, net: nn.Module, images: TrainingImages) -> GroupCounts:
        groups = torch.zeros_like(images.labels) if images.groups is None else images.groups
        with models.exact_convolutions():
            return count_right(net, images.images, images.labels, groups, self.dataset)

    def _finished(self, trainer: Trainer) -> TrainedNetwork:
        begun = trainer.recipe
        begun.predictor().load_state_dict(self._best["network"])
        if begun.needs_validation:
            begun.finish(self._validation)
        net = begun.predictor().eval()
        result = TrainedNetwork(
            net,
            self.config,
            self._count(net, self._test),
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

    def _digest(self, fakes: Split | SyntheticSet | None, weights: str, stages: str) -> str:
        """SHA-256 of everything besides the settings that decides the network."""
        if self._out is None:
            return ""
        sha = hashlib.sha256(f"{self.dataset.digest()} {weights} {stages}".encode())
        if fakes is not None:
            targets = fakes.targets if isinstance(fakes, SyntheticSet) else fakes.labels
            for array in (fakes.images, targets):
                sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def _open(self, resume: bool) -> None:
        path = self._out
        check_train_out(path, resume)
        check_train_room([path], self.bytes_of_folder())
        path.mkdir(parents=True, exist_ok=True)
        self._lock = files.hold(path)
        check_train_out(path, resume)
        files.remove_partials(path)
        if (path / CONFIG).exists():
            _check_same(path, self.config, self._inputs)
            return
        about = {"fastdd": __version__, "torch": str(torch.__version__), "data": self.dataset.provenance}
        if self._fakes_from:
            about["fakes"] = self._fakes_from
        header = {"train": self.config.model_dump(), "inputs": self._inputs, "about": about}
        if records := plugins.used(header["train"]):
            header["plugins"] = records
        files.write_text(path / CONFIG, yaml.safe_dump(header, sort_keys=False, allow_unicode=True))

    def bytes_of_folder(self) -> int:
        """What its folder takes at most: a checkpoint, another while it is written, the network, and the log."""
        recipe = self._trainer(len(self._stages) - 1).recipe
        kept = [*recipe.predictor().state_dict().values()]
        trained = [*recipe.parameters()] * (2 if self.config.optimiser == "adam" else 1)
        tensors = [*self._net.state_dict().values(), *kept, *trained]
        checkpoint = recipe.bytes() + sum(tensor.nbytes for tensor in tensors)
        rows = len(self._stages) * self.config.epochs * _ROW
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
