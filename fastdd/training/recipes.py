"""The registry of training recipes."""

from collections.abc import Callable, Mapping
from typing import Any

from fastdd.core import settings as _settings
from fastdd.core.text import did_you_mean, one_of
from fastdd.models.network import Network
from fastdd.training.base import Recipe, Settings, TrainingImages
from fastdd.training.dfa import Dfa
from fastdd.training.dfr import Dfr
from fastdd.training.erm import Erm
from fastdd.training.groupdro import GroupDro
from fastdd.training.lff import Lff
from fastdd.training.lw import Lw
from fastdd.training.resample import Resample
from fastdd.training.selecmix import SelecMix, SelecMixLff

RECIPES: dict[str, type[Recipe]] = {
    each.name: each for each in (Erm, Lw, Resample, GroupDro, Lff, Dfa, SelecMix, SelecMixLff, Dfr)
}


def recipe(name: str) -> type[Recipe]:
    """A recipe by its name; ValueError names the known ones."""
    if name not in RECIPES:
        raise ValueError(f"unknown training {name!r}; {one_of(name, RECIPES)}")
    return RECIPES[name]


def constants(name: str, values: Mapping[str, Any]) -> Settings:
    """A recipe's constants, with ``values`` over its defaults; ValueError in one line if they are none."""
    kind = recipe(name).Settings
    for key in values:
        if key not in kind.model_fields:
            known = ", ".join(kind.model_fields) or "none"
            raise ValueError(
                f"training {name} has no constant {key!r}; it has: {known}{did_you_mean(key, kind.model_fields)}"
            )
    return _settings.parse(kind, values)


def start(
    name: str,
    data: TrainingImages,
    net: Network,
    another: Callable[[str], Network],
    key: tuple,
    values: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe at its start (:class:`Recipe`)."""
    return recipe(name)(constants(name, values or {}), data, net, another, key)
