"""Stored networks that a run needs: experts that it follows, or trained ones that it matches on."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastdd import models
from fastdd.core.text import listed
from fastdd.data import Dataset
from fastdd.experts import Experts
from fastdd.experts.store import MANIFEST, check_parameters, parameter_list
from fastdd.methods import Settings, method, methods_that_need_experts
from fastdd.session.trained import NETWORK, read_network
from fastdd.training import recipe

_SAME = ("arch", "width", "depth", "training", "channels", "size", "class_names", "mean", "std")


def open_networks(path: str | os.PathLike) -> Experts:
    """Trained networks: the experts in a folder, or what ``fastdd train`` kept in a folder or in folders in it.

    The latter are in the order of their folders' names (2 before 10), and of no epoch but that which was kept: as
    experts of 0 epochs. Of a recipe that makes more than its network (dfa, dfr) they are that network.

    Raises:
        FileNotFoundError: there are none.
        RuntimeError: experts that are not finished, or damaged.
        ValueError: networks of several kinds, or a file that is none.
    """
    path = Path(path)
    if (path / MANIFEST).exists():
        return Experts.open(path)
    places = [path] if path.is_file() or (path / NETWORK).exists() else sorted(path.glob(f"*/{NETWORK}"), key=_in_order)
    if not places:
        raise FileNotFoundError(
            f"there are no trained networks in {path}: give a folder of experts (fastdd experts), or of networks of "
            "fastdd train"
        )
    values, first = [], None
    for place in places:
        stored = read_network(place)
        if "train" not in stored.about:
            raise ValueError(f"{place} is a network of an evaluation: give those of fastdd train, or experts")
        found = _described(stored.about)
        first = first or found
        for name in _SAME:
            if found[name] != first[name]:
                raise ValueError(
                    f"{place} is of another kind than {places[0]}: {name} {found[name]}, not {first[name]}"
                )
        net = recipe(first["training"]).network_of(stored.net)
        values.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    manifest = {
        **{name: first[name] for name in _SAME[4:]},
        "config": {name: first[name] for name in _SAME[:4]} | {"debias": "none"},
        "dataset": first["dataset"],
        "num_classes": len(first["class_names"]),
        "parameters": parameter_list(net),
        "experts": [],
    }
    opened = Experts(torch.stack(values)[:, None], manifest)
    opened.path = path
    return opened


def _in_order(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.parent.name)]


def _described(about: Mapping[str, Any]) -> dict[str, Any]:
    config = about["train"]
    return {
        **about,
        **{name: config[name] for name in ("arch", "width", "depth", "dataset")},
        "training": about["predictor"],
    }


def trained_by(stored: Experts) -> str:
    """The recipe that networks were trained by, or in place of plain training the debias mode of experts."""
    config = stored.manifest["config"]
    names = (config.get("training"), config.get("debias"))
    return next((name for name in names if name not in (None, "erm", "none")), "erm")


def _check_network(config: Settings, dataset: Dataset, stored: Experts, own: str) -> None:
    """ValueError unless the run's network is that of stored ones: in its parameters, and in what it does with them."""

    def built(arch: str, width: int | None, depth: int | None) -> nn.Module:
        return models.build(arch, dataset.channels, dataset.num_classes, dataset.size, width=width, depth=depth)

    here = config.arch, config.width, config.depth
    theirs = tuple(stored.manifest["config"].get(name) for name in _SAME[:3])
    net = built(*here)
    check_parameters(stored.manifest["parameters"], parameter_list(net), own, f"{config.arch} has")
    # Of another activation or pooling parameters fit all the same; the text of a network names every layer.
    if theirs[0] is not None and theirs != here and repr(built(*theirs)) != repr(net):
        raise ValueError(
            f"{own} another network: they are of {theirs[0]}, whose parameters fit {config.arch}, but not its layers; "
            "leave arch out"
        )


def check_experts(config: Settings, dataset: Dataset, experts: Experts | None) -> None:
    """ValueError unless a run whose method follows experts, and no other, has some that fit its data set and mode."""
    if not method(config.method).needs_experts:
        if experts is not None:
            raise ValueError(f"experts are for method {listed(methods_that_need_experts(), 'or')}, not {config.method}")
        return
    if experts is None:
        raise ValueError(
            f"method {config.method} needs the trajectories of experts: give experts (fastdd experts trains them)"
        )
    about = experts.manifest
    channels, size, classes, *_ = experts.about("channels", "size", "num_classes", "dataset", "dataset_digest")
    theirs = (channels, *size, classes)
    here = (dataset.channels, *dataset.size, dataset.num_classes)
    if theirs != here:
        raise ValueError(
            f"the experts learned {about['dataset']}, images of {list(theirs[:3])} in {theirs[3]} classes; "
            f"{dataset.name} has {list(here[:3])} in {here[3]}"
        )
    if about["dataset_digest"] not in (None, dataset.digest()):
        raise ValueError(f"the experts were trained on other data ({about['dataset']}) than this {dataset.name}")
    _check_network(config, dataset, experts, "the experts have")
    trained = about["config"].get("debias")
    if method(config.method).debias_of_experts and trained != config.debias:
        raise ValueError(
            f"the experts were trained with debias={trained}, not {config.debias}: {config.method}'s debias is that of "
            "its experts"
        )


def check_networks(config: Settings, dataset: Dataset, networks: Experts | None) -> None:
    """ValueError unless a run has trained networks just where its settings name some, and they fit its data."""
    named = getattr(config, "networks", None)
    if (named is None) != (networks is None):
        what = "names none" if named is None else f"names {named}"
        raise ValueError(f"the setting networks {what}, and {'none' if networks is None else 'some'} are given")
    if networks is None:
        return
    about, own = networks.manifest, f"the networks of {named}"
    channels, size, classes, *_ = networks.about("channels", "size", "num_classes", "mean", "std")
    theirs, here = [channels, *size], [dataset.channels, *dataset.size]
    if theirs != here or classes != dataset.num_classes:
        raise ValueError(
            f"{own} learned images of {theirs} in {classes} classes; {dataset.name} has {here} in {dataset.num_classes}"
        )
    names = about.get("class_names", [])
    wrong = next(((a, b) for a, b in zip(names, dataset.class_names, strict=False) if a != b), None)
    if wrong is not None:
        raise ValueError(f"{own} learned other classes: {wrong[0]!r}, where {dataset.name} has {wrong[1]!r}")
    if networks.zca is not None or (list(about["mean"]), list(about["std"])) != (list(dataset.mean), list(dataset.std)):
        how = "whitened (ZCA)" if networks.zca is not None else "normalised otherwise"
        raise ValueError(f"{own} learned images that were {how}, unlike those of {config.method} on {dataset.name}")
    _check_network(config, dataset, networks, f"{own} are")
    trained = recipe(about["config"].get("training") or "erm")
    if method(config.method).looks_at_logits and not trained.net_predicts:
        raise ValueError(
            f"{own} are of training {trained.name}, whose network has features and no last layer of its own: "
            f"{config.method} looks at that, dm and datadam do not"
        )
    if config.networks_epoch is not None and config.networks_epoch > networks.epochs:
        kept = f"were trained for {networks.epochs} epochs" if networks.epochs else "are of the epoch that was kept"
        raise ValueError(f"networks_epoch {config.networks_epoch}: {own} {kept}")
