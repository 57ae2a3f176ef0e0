"""The shipped settings of methods and experts, ``NAME.yaml``, which names their source. Networks are the data sets'."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import Any

import yaml

from fastdd import models
from fastdd.data.sets import DATASETS, Architecture
from fastdd.debias import mode

# Of registered methods: the file whose settings theirs go over, if any, and theirs.
_REGISTERED: dict[str, tuple[str | None, dict[str, Any]]] = {}


def register(name: str, base: str | None, settings: Mapping[str, Any]) -> None:
    """Have settings ``name``: those of the file, or the registered name, ``base``, and over its rules these."""
    _REGISTERED[name] = base, dict(settings)


def remove(name: str) -> None:
    """Forget registered settings."""
    _REGISTERED.pop(name, None)


def is_registered(name: str) -> bool:
    """Whether settings of this name are registered, and no file's."""
    return name in _REGISTERED


def preset(
    name: str,
    dataset: str,
    ipc: int,
    debias: str = "none",
    arch: str | None = None,
    *,
    named: str = "published",
    training: str = "erm",
    use: str = "none",
    bias_ratio: float | None = None,
) -> dict[str, Any]:
    """The settings of ``NAME.yaml`` for a data set, an IPC and a debias mode, over the network that fits the data set.

    Rules apply from top to bottom; what a rule asks for (``when``) must all hold: ``dataset`` and ``debias`` are lists
    of names, ``family`` is the data set's (:class:`fastdd.data.sets.Entry`), ``debias_needs`` is what the mode needs
    (:class:`fastdd.debias.Mode`), ``preset`` is the one asked for (``named``), ``min_ipc`` is the least IPC,
    ``training`` lists recipes, ``bias_ratio`` shares of a class's training images in its own group. Learning rates that
    are published by data set, ``use`` of fake images, recipe and ``bias_ratio`` (``rates``) come last. Width and depth
    are the shipped ConvNet's: they are left out for an ``arch`` that has its own.
    """
    shipped, entry = _shipped(name), DATASETS.get(dataset)
    architecture = asdict(entry.architecture if entry else Architecture())
    settings = {name: value for name, value in architecture.items() if value is not None} | shipped["settings"]
    for rule in shipped["rules"]:
        when = rule["when"]
        if (
            dataset in when.get("dataset", [dataset])
            and when.get("family") in (None, entry and entry.family)
            and debias in when.get("debias", [debias])
            and when.get("debias_needs") in (None, mode(debias).needs)
            and when.get("preset") in (None, named)
            and ipc >= when.get("min_ipc", ipc)
            and training in when.get("training", [training])
            and bias_ratio in when.get("bias_ratio", [bias_ratio])
        ):
            settings.update(rule["settings"])
    settings |= _rates(shipped.get("rates", {}), dataset, use, training, bias_ratio)
    if arch is not None and not models.is_convnet(arch):
        of_convnets = ("width", "depth", "match_width")
        settings = {name: value for name, value in settings.items() if name not in of_convnets}
    return settings


def _rates(rates: dict[str, Any], dataset: str, use: str, training: str, bias_ratio: float | None) -> dict[str, float]:
    if dataset not in rates or bias_ratio not in rates["bias_ratio"]:
        return {}
    of_use = rates[dataset].get(use, {})
    found = {"lr": of_use.get("erm" if training == "dfr" else training), "pretrain_lr": of_use.get("pretrain")}
    column = rates["bias_ratio"].index(bias_ratio)
    return {name: by_ratio[column] for name, by_ratio in found.items() if by_ratio is not None}


def _shipped(name: str) -> dict[str, Any]:
    if name not in _REGISTERED:
        return _read(name)
    base, settings = _REGISTERED[name]
    under = {"settings": {}, "rules": []} if base is None else _shipped(base)
    return {**under, "rules": [*under["rules"], {"when": {}, "settings": settings}]}


@cache
def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load(resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
