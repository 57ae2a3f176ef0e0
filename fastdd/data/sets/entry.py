"""What the registry has of a data set."""

import dataclasses
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


def registered(name: str, load: Callable[..., Dataset | Plan]) -> Callable[..., Dataset | Plan]:
    """A user's loader as an :class:`Entry`'s: with a root, whether it takes one or not, and its result's name ``name``.

    Raises:
        TypeError: what is no function of at most a root and of options with defaults, by name; when it is called, for
            a result that is no data set.
    """
    if not callable(load):
        raise TypeError(f"data set {name}: load is a function, not {type(load).__name__}")
    signature = inspect.signature(load)
    kinds = [p.kind for p in signature.parameters.values()]
    places = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    loose = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_root = [p.name for p in places] == ["root"]
    if (
        loose
        or (places and not takes_root)
        or {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL} & {*kinds}
    ):
        raise TypeError(
            f"data set {name}: load is called with the folder of --data-root and options, (root, *, option=default) "
            f"or (*, option=default); this one is {getattr(load, '__name__', 'it')}{signature}"
        )

    def load_registered(root: Any, **options: Any) -> Dataset | Plan:
        try:
            made = load(root, **options) if takes_root else load(**options)
        except (ValueError, TypeError, OSError, RuntimeError):  # one line as it is
            raise
        except Exception as error:
            raise ValueError(f"data set {name}: its load fails: {type(error).__name__}: {error}") from error
        if not isinstance(made, Dataset | Plan):
            raise TypeError(f"data set {name}: its load returned {type(made).__name__}, not a fastdd.data.Dataset")
        return dataclasses.replace(made, name=name)

    root = inspect.Parameter("root", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    options = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    load_registered.__signature__ = signature.replace(parameters=[root, *options])
    return load_registered
