"""What the registry has of a data set."""

import inspect
import os
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdd.data.dataset import Dataset
from fastdd.data.files.plan import Plan


@dataclass(frozen=True)
class Architecture:
    """A network that fits the images of a data set.

    Args:
        arch: its name.
        width, depth: those of a ConvNet; None for the network's own.
    """

    arch: str = "ConvNet"
    width: int | None = None
    depth: int | None = None


@dataclass(frozen=True)
class Entry:
    """A data set of the registry.

    Args:
        description: one line.
        load: ``load(root, *, option=default, ...)``; its keyword-only parameters are the data set's options. It checks
            their values (ValueError, one line); :func:`fastdd.data.load` has checked their types, ``bias_ratio`` and
            ``seed``. Of image files, it returns a plan, which is decoded into memory, or streamed into a store
            (:func:`fastdd.data.build`).
        published: numbers of training and test images with the default options.
        architecture: the network that methods and experts take unless they, or the user, say otherwise.
        family: of the sets that published code has the same settings for; None for a set by itself.
        objects: where the object is in images uint8 [N, C, H, W], bool [N, H, W], and none in an image
            whose pixels do not tell; None where no image's do.
    """

    description: str
    load: Callable[..., Dataset | Plan]
    published: tuple[int, int] | None = None
    architecture: Architecture = Architecture()
    family: str | None = None
    objects: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options and their defaults."""
        return {parameter.name: parameter.default for parameter in self._keywords}

    @property
    def paths(self) -> set[str]:
        """The options that name a file or a folder."""
        return {parameter.name for parameter in self._keywords if os.PathLike in typing.get_args(parameter.annotation)}

    @property
    def _keywords(self) -> list[inspect.Parameter]:
        parameters = inspect.signature(self.load).parameters.values()
        return [parameter for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY]


def built(read: Callable[..., Any], build: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """``build(read(root), **options)`` as an :class:`Entry`'s ``load``, with the options of ``build``."""

    def load(root, **options) -> Dataset:
        return build(read(root), **options)

    load.__signature__ = inspect.signature(build)
    return load
