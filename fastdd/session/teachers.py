"""Teachers of decoupled methods: trained networks, from wherever they are."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastdd import models
from fastdd.data import Dataset
from fastdd.exchange import torch_files
from fastdd.experts import Experts
from fastdd.experts.store import MANIFEST
from fastdd.methods import Teacher
from fastdd.methods.decoupled import has_statistics
from fastdd.models.pretrained import load_weights
from fastdd.session.trained import StoredNetwork, network_files, read_network
from fastdd.training import recipe

_NAMES = ("arch", "width", "depth")


def network_of_teacher(path: str | os.PathLike) -> dict[str, Any]:
    """``arch``, ``width`` and ``depth``, where the teacher's folder or file says them; empty for bare weights.

    Raises:
        FileNotFoundError: there is nothing.
    """
    path = Path(path)
    if (path / MANIFEST).exists():
        config = Experts.open(path).manifest["config"]
        return {name: config.get(name) for name in _NAMES}
    stored = _stored(path)
    return {} if stored is None else _network(stored)


def _stored(path: Path) -> StoredNetwork | None:
    """A network of fastdd's; None for a file of bare weights."""
    if not path.exists():
        raise FileNotFoundError(f"there is no teacher {path}: fastdd train --out, or fastdd experts, trains one")
    file = network_files(path)[0]
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as opened:
                ours = "fastdd" in (opened.metadata() or {})
        except SafetensorError as error:
            raise ValueError(f"the teacher {file} is no safetensors file, or is damaged: {error}") from None
        if ours:
            return read_network(file)
    return None


def _network(stored: StoredNetwork) -> dict[str, Any]:
    config = stored.about.get("network") or stored.about["train"]
    return {name: config.get(name) for name in _NAMES}


def open_teacher(
    path: str | os.PathLike | None,
    dataset: Dataset,
    network: Mapping[str, Any],
    device: torch.device | str = "cpu",
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Teacher:
    """A teacher of the data set's classes and images.

    Args:
        path: a folder of experts, of which the first is taken as it ended; a file or folder of ``fastdd train``, or of
            networks that an evaluation kept; a file of weights (safetensors, or of ``torch.save``, which is read
            without running what it holds), of torchvision's or timm's ResNets among others.
        network: ``arch``, ``width`` and ``depth`` of bare weights; of others those that they have.
        mean, std: how images are normalised that the teacher is going to see; None: as the data set's.

    Raises:
        FileNotFoundError: there is none.
        ValueError: one line: other classes, another size or normalisation, another network, values that are not
            finite, no teacher at all, or batch norms without statistics.
    """
    if path is None:
        raise ValueError(
            "a teacher is missing (--teacher): a trained network of fastdd train or fastdd experts, or a "
            "file of its weights"
        )
    path = Path(path)
    seen = tuple(mean or dataset.mean), tuple(std or dataset.std)
    if (path / MANIFEST).exists():
        net, found = _expert(path, dataset, seen)
    elif (stored := _stored(path)) is not None:
        stored.check_fits(dataset)
        _check_normalisation(path, seen, stored.about, stored.zca is not None)
        if not recipe(stored.about["predictor"]).net_predicts:
            raise ValueError(
                f"the teacher {path} is of training {stored.about['predictor']}, whose network has no "
                "last layer of its own: train one with another recipe"
            )
        net, found = recipe(stored.about["predictor"]).network_of(stored.net), _network(stored)
    else:
        found = {name: network.get(name) for name in _NAMES}
        net = _built(found, dataset)
        unfilled = load_weights(net, path, torch_files.load)
        if unfilled:
            raise ValueError(
                f"the teacher {path} is of other classes than the {dataset.num_classes} of "
                f"{dataset.name}: its last layer does not fit"
            )
    net = net.to(device).eval().requires_grad_(False)
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return Teacher(net, os.fspath(path), digest.hexdigest(), found)


def _built(network: Mapping[str, Any], dataset: Dataset) -> models.Network:
    how = {name: network.get(name) for name in ("width", "depth")}
    return models.build(network["arch"], dataset.channels, dataset.num_classes, dataset.size, **how)


def _expert(path: Path, dataset: Dataset, seen: tuple) -> tuple[models.Network, dict[str, Any]]:
    experts = Experts.open(path)
    about, found = experts.manifest, {name: experts.manifest["config"].get(name) for name in _NAMES}
    channels, size, classes = experts.about("channels", "size", "num_classes")
    theirs, here = [channels, *size, classes], [dataset.channels, *dataset.size, dataset.num_classes]
    names = about.get("class_names")
    if theirs != here or names not in (None, list(dataset.class_names)):
        raise ValueError(
            f"the teacher {path} learned {about.get('dataset')}, images of {theirs[:3]} in {theirs[3]} "
            f"classes; {dataset.name} has {here[:3]} in {here[3]}{'' if theirs != here else ' others'}"
        )
    _check_normalisation(path, seen, about, experts.zca is not None)
    net = _built(found, dataset)
    experts.check_network(net, found["arch"])
    if has_statistics(net):
        raise ValueError(
            f"the experts in {path} have batch norms ({found['arch']}), whose statistics they do not keep: "
            "train a teacher with fastdd train"
        )
    nn.utils.vector_to_parameters(experts.at(0, experts.epochs), net.parameters())
    return net, found


def _check_normalisation(path: Path, seen: tuple, about: Mapping[str, Any], whitened: bool) -> None:
    if whitened or (tuple(about.get("mean", seen[0])), tuple(about.get("std", seen[1]))) != seen:
        how = "whitened (ZCA)" if whitened else "normalised otherwise"
        raise ValueError(f"the teacher {path} learned images that were {how}: it can't judge these")
