"""Runs that are as small as can be: of every method, on every kind of data, with every debias mode."""

from functools import cache

import numpy as np
import pytest
import torch

from fastdd import models
from fastdd.core import rng
from fastdd.core.graph import Graphs
from fastdd.data import Dataset, Split
from fastdd.debias import MODES
from fastdd.experts import Experts, describe_experts
from fastdd.methods import METHODS, Context, Method, Settings, Teacher, configure

KINDS = {
    "colour": {},
    "gray": {"channels": 1},
    "not square": {"size": (8, 12)},
    "one class": {"classes": 1},
    "one group": {"groups": 1},
    "a class smaller than the batch": {"smallest": 3},
}


@cache
def made(kind: str) -> Dataset:
    """A few random images, two or three of the last group of every class."""
    settings = {"channels": 3, "size": (8, 8), "classes": 3, "groups": 2, "smallest": 12, **KINDS[kind]}
    classes, groups = settings["classes"], settings["groups"]
    generator = np.random.default_rng(0)

    def split(per_class: list[int]) -> Split:
        labels = np.repeat(np.arange(classes), per_class)
        images = generator.integers(0, 256, (len(labels), settings["channels"], *settings["size"]), dtype=np.uint8)
        within = np.concatenate([np.arange(n) for n in per_class])
        return Split(images, labels.astype(np.int64), (within % 4 == 3).astype(np.int64) * (groups - 1))

    sizes = [12] * (classes - 1) + [settings["smallest"]]
    half = (0.5,) * settings["channels"]
    names = tuple(f"class {number}" for number in range(classes))
    group_names = tuple(f"group {number}" for number in range(groups))
    return Dataset("made", split(sizes), split([4] * classes), names, group_names, half, half, {})


def tiny(method: str, **settings) -> Settings:
    """The method's settings with every number of steps, epochs and images as small as may be."""
    usual = configure(dataset="made", method=method)
    few = {
        name: min(value, 2)
        for name, value in usual.model_dump().items()
        if isinstance(value, int) and not isinstance(value, bool) and name not in ("seed", "ipc", "width", "depth")
    }
    batches = {name: 6 for name in few if name.startswith("batch_")}
    network = {"arch": "ConvNet", "width": 4, "depth": 2, "ipc": 2}
    return configure(**{"dataset": "made", "method": method, **few, **batches, **network, **settings})


@cache
def experts(kind: str, mode: str) -> Experts:
    """Random ones, each some way from where it began."""
    network = {"arch": "ConvNet", "width": 4, "depth": 2, "debias": mode}
    manifest = {**describe_experts(network, made(kind)), "experts": [], "dataset_digest": None}
    size = sum(int(np.prod(parameter["shape"])) for parameter in manifest["parameters"])
    start = 0.1 * rng.normal(rng.key(0, "start"), 2 * size).view(2, 1, size)
    way = 0.01 * rng.normal(rng.key(0, "way"), 2 * 4 * size).view(2, 4, size)
    return Experts(torch.cat([start, start + way.cumsum(1)], 1), manifest)


@cache
def teacher(kind: str) -> Teacher:
    """A random network with batch norms, whose statistics are of no images."""
    data = made(kind)
    net = models.build("ConvNetBN", data.channels, data.num_classes, data.size, width=4, depth=2, key=1)
    for number, norm in enumerate(layer for layer in net.modules() if hasattr(layer, "running_mean")):
        norm.running_mean.copy_(0.1 * rng.normal(rng.key(number, "mean"), len(norm.running_mean)))
        norm.running_var.copy_(rng.normal(rng.key(number, "var"), len(norm.running_var)).square())
    return Teacher(net.eval().requires_grad_(False), "./teacher", "digest")


def inputs(config: Settings, kind: str) -> dict:
    """What a run takes besides its settings and the data."""
    method, data = METHODS[config.method], made(kind)
    found = {"teacher": teacher(kind)} if method.by_class else {}
    if method.needs_experts:
        found["experts"] = experts(kind, config.debias if method.debias_of_experts else "none")
    if method.takes("weights", config.mode):
        found["weights"] = 1 / (1 + np.arange(len(data.train)) % 5)
    return found


def modes_of(method: str) -> list[str]:
    """Modes that a run of the method can have: those of training where they are its experts'."""
    kind = METHODS[method]
    if kind.by_class:
        return [*kind.Settings.modes]
    return [name for name, mode in MODES.items() if mode.in_training or not kind.debias_of_experts]


def begun(method: str, device: torch.device | str = "cpu", **settings) -> Method:
    """The method, before its first step, on images that are the same everywhere."""
    config, data = tiny(method, **settings), made("colour")
    given = inputs(config, "colour")
    weights = None if given.get("weights") is None else torch.as_tensor(given["weights"])
    images = torch.linspace(-1, 1, 3 * 2 * 3 * 8 * 8).view(6, 3, 8, 8).sin()
    networks = experts("colour", "none") if settings.get("networks") else None
    where = Context(data, torch.device(device), images, weights, given.get("experts"), networks=networks)
    return METHODS[method](config, where)


def graphs_of(method: Method) -> list[Graphs]:
    """All that a method does in units."""
    between = (
        [getattr(method, "_epochs", None), getattr(method._networks, "_trainings", None)]
        if hasattr(method, "_networks")
        else []
    )
    return [graphs for graphs in (method._steps, *between) if graphs is not None]


def in_turn(cases: list[tuple[str, ...]]) -> list:
    """Cases (method, mode, ...) as parameters: the default suite has every method without a mode and with FairDD's, and
    every other mode and kind of data with one method, another each; ``full`` has the rest."""
    usual = ({"none", "colour"}, {"fairdd", "colour"}, {"none"}, {"fairdd"})
    kinds = list(dict.fromkeys(case[1:] for case in cases))

    def always(case: tuple[str, ...]) -> bool:
        alike = [other for other in cases if other[1:] == case[1:]]
        return set(case[1:]) in usual or case == alike[kinds.index(case[1:]) % len(alike)]

    return [case if always(case) else pytest.param(*case, marks=pytest.mark.full) for case in cases]
