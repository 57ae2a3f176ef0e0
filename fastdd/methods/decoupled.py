"""What decoupled methods have in common: a trained teacher, and classes that are made one after another.

They look for images that a *teacher* knows, in place of matching networks on the way. No step is on all classes, so
that images of a class can be written as soon as they are there, and memory does not grow with their number
(:class:`fastdd.session.by_class.ClassRun`).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from fastdd import debias, models
from fastdd.core import settings
from fastdd.core.settings import setting
from fastdd.data import Dataset
from fastdd.debias import Mode
from fastdd.methods import base


def _as_all_have_it(name: str) -> Any:
    """A setting that other methods have too, with its help, default and limits."""
    return copy.copy(base.Settings.model_fields[name])


class DecoupledSettings(settings.Settings):
    """Settings that every decoupled method has."""

    modes: ClassVar[tuple[str, ...]] = ("none",)
    method: str = _as_all_have_it("method")
    debias: str = _as_all_have_it("debias")
    dataset: str = _as_all_have_it("dataset")
    ipc: int = _as_all_have_it("ipc")
    arch: str = _as_all_have_it("arch")
    width: int | None = _as_all_have_it("width")
    depth: int | None = _as_all_have_it("depth")
    dsa_strategy: str = _as_all_have_it("dsa_strategy")
    seed: int = _as_all_have_it("seed")
    teacher: str | None = setting(
        "trained network that says what belongs to a class: a folder or file of fastdd train, experts (the first, as "
        "it ended), or a file of weights of torchvision's or timm's, which arch names the network of",
        None,
        default_help="none, which is refused",
    )

    @field_validator("arch")
    @classmethod
    def _known_network(cls, value: str) -> str:
        return models.canonical_name(value)

    @model_validator(mode="after")
    def _mode_that_it_has(self) -> "DecoupledSettings":
        debias.mode(self.debias)
        if self.debias not in self.modes:
            raise ValueError(f"{self.method} has debias {', '.join(self.modes)}, not {self.debias}{self._why()}")
        return self

    def _why(self) -> str:
        """What to say besides of a mode that it has not."""
        return ""

    @property
    def mode(self) -> Mode:
        """The debias mode."""
        return debias.mode(self.debias)

    @classmethod
    def usual(cls, ipc: int) -> dict[str, Any]:
        """As :meth:`fastdd.methods.Settings.usual`."""
        return {}


@dataclass(frozen=True)
class Teacher:
    """A trained network, for logits only.

    Attributes:
        net: of normalised images, in evaluation mode, whose parameters need no gradient.
        path: where it is from.
        digest: SHA-256 of its parameters and statistics.
        network: ``arch``, ``width`` and ``depth``.
    """

    net: models.Network
    path: str
    digest: str
    network: Mapping[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Of normalised images [N, C, H, W], in chunks that fit; an image's do not depend on others'."""
        size = models.chunk_size(self.net, images)
        return torch.cat([self.net(part) for part in images.split(size)])

    def about(self) -> dict[str, Any]:
        """For the metadata of a set."""
        return {"path": self.path, "digest": self.digest, **self.network}


class Unit(NamedTuple):
    """Images that are made at once: those of these numbers, of each of these classes."""

    classes: range
    numbers: range

    def rows(self, ipc: int) -> list[int]:
        """Where they lie in the set, class by class."""
        return [label * ipc + number for label in self.classes for number in self.numbers]


class Decoupled:
    """A method whose units of images are made one after another, none of which depends on another.

    Args:
        config: its settings.
        dataset: the real images.
        teacher: of the data set's classes and size.
        device: where.
        weights: float [N], of the training images, where the debias mode needs them.

    Attributes:
        units: all of them, in the order in which they are made.
        by_class: what tells these methods from those that have steps on all classes.
        about, source, Settings, presets, quick: as of :class:`fastdd.methods.Method`, as are the rest.
    """

    about: ClassVar[str]
    source: ClassVar[str]
    Settings: ClassVar[type[DecoupledSettings]]
    presets: ClassVar[str | None] = None
    quick: ClassVar[Mapping[str, Any]] = {}
    by_class: ClassVar[bool] = True
    needs_experts: ClassVar[bool] = False
    debias_of_experts: ClassVar[bool] = False
    experts: ClassVar[Mapping[str, Any]] = {}
    classes_apart: ClassVar[bool] = True
    looks_at_logits: ClassVar[bool] = True
    units: list[Unit]

    def __init__(
        self,
        config: Any,
        dataset: Dataset,
        teacher: Teacher,
        device: torch.device | str = "cpu",
        weights: Tensor | None = None,
    ):
        self._config, self._dataset, self._teacher = config, dataset, teacher
        self._device, self._sample_weights = torch.device(device), weights
        if teacher.net.training or any(parameter.requires_grad for parameter in teacher.net.parameters()):
            raise ValueError("the teacher must be in evaluation mode, and its parameters must need no gradient")

    @classmethod
    def takes(cls, what: str, mode: Mode) -> bool:
        """As :meth:`fastdd.methods.Method.takes`."""
        return mode.needs == what

    def make(self, unit: Unit) -> tuple[Tensor, float]:
        """The unit's images, float32 [N, C, H, W], normalised, in the order of its rows; and their loss."""
        raise NotImplementedError


def has_statistics(net: nn.Module) -> bool:
    """Whether a network has batch norms, whose running statistics it needs to be evaluated."""
    return models.couples_samples(net)
