"""A trained network: what it reaches, and its file."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fastdd import models
from fastdd.core import files
from fastdd.data import Dataset
from fastdd.evaluation import GroupCounts, Metrics
from fastdd.training import TrainSettings, recipe

# Of its folder.
NETWORK = "network.safetensors"
_SCHEMA = 1


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network and what it reaches.

    Attributes:
        net: logits of normalised images, in evaluation mode.
        settings: how it was trained.
        counts: right predictions on the test images, per class and group.
        epoch: the epoch that was kept, of the last stage, counted from 1.
        history: a row an epoch: ``stage``, ``epoch``, ``loss``; with validation images, ``accuracy``, ``wa`` and ``ba``
            on them; and, of recipes that find out by themselves how much images count, where groups are known,
            ``weights``: means of bias-``aligned`` and bias-``conflicting`` images, of weights in the ``loss`` (lff,
            dfa), and of times that they were the ``partner`` of another in the epoch (selecmix).
        fakes: fake images that were trained on, int64 [C, G], or [C] where their groups are not known; None for none.
        tested_on: ``test``, or ``validation`` for held-out training images.
        predictor: the recipe that ``net`` is of: that of the last stage.
        unfilled: tensors that the file of weights did not fill.
    """

    net: nn.Module
    settings: TrainSettings
    counts: GroupCounts
    epoch: int
    history: tuple[dict[str, Any], ...]
    fakes: np.ndarray | None
    tested_on: str
    predictor: str
    unfilled: tuple[str, ...] = ()

    def metrics(self, deo: str = "range") -> Metrics:
        """Accuracy, DEO_M, DEO_A, WA and BA on the test images, percent."""
        return self.counts.metrics(deo)


def save_network(path: Path, trained: TrainedNetwork, dataset: Dataset) -> None:
    """Write a network: a plain state dict in a safetensors file, with what :func:`read_network` needs as metadata."""
    from safetensors.torch import save

    about = {
        "schema": _SCHEMA,
        "train": trained.settings.model_dump(),
        "predictor": trained.predictor,
        "channels": dataset.channels,
        "size": list(dataset.size),
        "class_names": list(dataset.class_names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "epoch": trained.epoch,
        "test": {name: None if math.isnan(value) else value for name, value in asdict(trained.metrics()).items()},
    }
    tensors = {name: value.contiguous().cpu() for name, value in trained.net.state_dict().items()}
    content = save(tensors, {"fastdd": json.dumps(about, sort_keys=True)})
    files.write_atomic(path, lambda file: file.write(content))


def read_network(path: str | os.PathLike) -> tuple[nn.Module, Mapping[str, Any]]:
    """A network that :func:`save_network` wrote, or its folder: the module in evaluation mode, and its metadata.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or was not written here.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    path = path / NETWORK if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"there is no network at {path}")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["fastdd"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        config = TrainSettings.model_validate(about["train"])
        classes, size = len(about["class_names"]), tuple(about["size"])

        def make() -> models.Network:
            return models.build(config.arch, about["channels"], classes, size, width=config.width, depth=config.depth)

        net = recipe(about["predictor"]).empty_predictor(make, classes)
        net.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is not a network of fastdd's: {files.reason(error)}") from None
    return net.eval(), about
