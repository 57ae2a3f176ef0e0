"""A trained network: what it reaches, and its file."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.core import files, plugins
from fastdd.data import Dataset, DeviceImages, Split, Zca
from fastdd.data.dataset import shape_text
from fastdd.data.files.store import store_of, written_digest
from fastdd.evaluation import EvaluationPlan, GroupCounts, Metrics
from fastdd.training import TrainSettings, recipe

# Of the folder of a network that was trained by itself, and of those that an evaluation keeps.
NETWORK = "network.safetensors"
_SCHEMA = 1
_ZCA = "zca."


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
        fakes_from: where the fake images are from, in words; empty for none.
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
    fakes_from: str = ""

    def __repr__(self) -> str:
        figures = _figures(self.counts)
        shown = ", ".join(f"{name} {value:.1f}" for name, value in figures.items() if value is not None)
        how = f"{self.settings.arch}, {self.settings.training}, epoch {self.epoch}"
        return f"TrainedNetwork({how}, {self.tested_on} set, %: {shown})"

    def metrics(self, deo: str = "range") -> Metrics:
        """Accuracy, DEO_M, DEO_A, WA and BA on the test images, percent."""
        return self.counts.metrics(deo)


@dataclass(frozen=True)
class StoredNetwork:
    """A network from a file, and how it sees images.

    Attributes:
        path: the file.
        net: logits of normalised images, in evaluation mode.
        about: what the file says of it: ``class_names``, ``mean``, ``std``, ``size``, ``channels``, ``test`` (figures
            on the test images, percent), how it was trained: ``train`` or ``evaluation``, and on what: ``data``.
        zca: whitens its images; None: they are normalised by ``mean`` and ``std``.
    """

    path: Path
    net: nn.Module
    about: Mapping[str, Any]
    zca: Zca | None = None

    def __repr__(self) -> str:
        about = self.about
        images = shape_text((about["channels"], *about["size"]))
        return f"StoredNetwork({str(self.path)!r}, images {images}, {len(about['class_names'])} classes)"

    def check_fits(self, dataset: Dataset) -> None:
        """ValueError unless it is of images and classes as the data set's."""
        about = self.about
        theirs = (about["channels"], *about["size"], *about["class_names"])
        if theirs != (dataset.channels, *dataset.size, *dataset.class_names):
            shapes = [[about["channels"], *about["size"]], [dataset.channels, *dataset.size]]
            raise ValueError(
                f"{self.path} is a network of images {shapes[0]} in {len(about['class_names'])} classes "
                f"({', '.join(about['class_names'][:3])} ...), {dataset.name} has {shapes[1]} in {dataset.num_classes} "
                f"({', '.join(dataset.class_names[:3])} ...): give the data set that it was trained on"
            )

    def read(self, split: Split, device: torch.device | str = "cpu") -> DeviceImages:
        """Images as it saw them in training."""
        if self.zca is not None:
            return self.zca.read(split.images, device)
        return DeviceImages.of(split.images, tuple(self.about["mean"]), tuple(self.about["std"]), device)


def save_network(path: Path, trained: TrainedNetwork, dataset: Dataset) -> None:
    """Write a network: a plain state dict in a safetensors file, with what :func:`read_network` needs as metadata."""
    about = {
        "train": trained.settings.model_dump(),
        "predictor": trained.predictor,
        "epoch": trained.epoch,
        "fakes_from": trained.fakes_from,
        "test": _figures(trained.counts),
    }
    _save(path, trained.net, about, dataset)


def network_file(folder: Path, arch: str, number: int) -> Path:
    """Where an evaluation keeps a network."""
    return folder / f"{arch}-{number}.safetensors"


def save_evaluated(
    path: Path, net: nn.Module, counts: GroupCounts, plan: EvaluationPlan, number: int, of: Mapping[str, Any]
) -> None:
    """Write network ``number`` of an evaluation as :func:`save_network` does; ``of`` says what it was trained on."""
    protocol = plan.protocol
    milestones = None if protocol.milestones is None else [str(part) for part in protocol.milestones]
    about = {
        "network": {**plan.network, "arch": models.canonical_name(plan.arch)},
        "evaluation": {
            "protocol": {**asdict(protocol), "constants": dict(protocol.constants), "milestones": milestones},
            "seed": plan.seed,
            "number": number,
            "of": dict(of),
            "right": counts.right.tolist(),
            "total": counts.total.tolist(),
        },
        "predictor": protocol.training,
        "test": _figures(counts),
    }
    _save(path, net, about, plan.dataset, {} if plan.zca is None else plan.zca.tensors())


def _figures(counts: GroupCounts) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(counts.metrics()).items()}


def _save(
    path: Path, net: nn.Module, about: Mapping[str, Any], dataset: Dataset, zca: Mapping[str, Tensor] | None = None
) -> None:
    from safetensors.torch import save

    of_images = {
        "schema": _SCHEMA,
        "channels": dataset.channels,
        "size": list(dataset.size),
        "class_names": list(dataset.class_names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "data": _origin(dataset),
    }
    if records := plugins.used(about.get("network") or about["train"]):
        of_images["plugins"] = records
    tensors = {name: value.contiguous().cpu() for name, value in net.state_dict().items()}
    content = save({**tensors, **(zca or {})}, {"fastdd": json.dumps({**of_images, **about}, sort_keys=True)})
    files.write_atomic(path, lambda file: file.write(content))


def _origin(dataset: Dataset) -> dict[str, Any]:
    """What the data set is found again by; of a packed store its digest as well, which no pixel is read for."""
    provenance, store = dataset.provenance, store_of(dataset)
    told = {name: provenance[name] for name in ("builder", "parameters") if name in provenance}
    if store is not None:
        told |= {"store": str(store), "digest": written_digest(store)}
    return {"name": dataset.name, **told}


def network_files(path: str | os.PathLike) -> list[Path]:
    """The file of a network; of a folder, that of ``fastdd train``, or all that an evaluation kept there.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    found = [path / NETWORK] if (path / NETWORK).is_file() else sorted(path.glob("*-*.safetensors"), key=_by_number)
    if not found:
        raise FileNotFoundError(f"there is no network at {path}: fastdd train --out and evaluate --keep-nets keep some")
    return found


def _by_number(path: Path) -> tuple[str, int, str]:
    arch, _, number = path.stem.rpartition("-")
    return arch, int(number) if number.isdigit() else 0, number


def read_network(path: str | os.PathLike) -> StoredNetwork:
    """A network that :func:`save_network` or :func:`save_evaluated` wrote, or the first in a folder of them.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or was not written here.
    """
    from safetensors import SafetensorError, safe_open

    path = network_files(path)[0]
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["fastdd"])
            plugins.recall(about.get("plugins"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        zca = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_ZCA)}
        network = about.get("network") or TrainSettings.model_validate(about["train"]).model_dump()
        classes, size = len(about["class_names"]), tuple(about["size"])

        def make() -> models.Network:
            width, depth = network["width"], network["depth"]
            return models.build(network["arch"], about["channels"], classes, size, width=width, depth=depth)

        net = recipe(about["predictor"]).empty_predictor(make, classes)
        net.load_state_dict(tensors)
        whitens = Zca(zca[f"{_ZCA}mean"], zca[f"{_ZCA}matrix"]) if zca else None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is not a network of fastdd's: {files.reason(error)}") from None
    return StoredNetwork(path, net.eval(), about, whitens)
