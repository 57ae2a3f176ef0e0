"""One's own networks, methods, modes and data sets, by names that Python and the commands then know."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from torch import nn

from fastdd import data as datasets
from fastdd import debias, methods, models
from fastdd.core import plugins
from fastdd.data import Dataset
from fastdd.data.files.plan import Plan
from fastdd.data.sets import Architecture
from fastdd.debias import Batch, Mode, Segments
from fastdd.methods import Method


def register_network(name: str, factory: Callable[..., nn.Module], *, embed: str | None = None) -> None:
    """Make a network known by a name: ``arch=name``, ``--arch name``, for every method, experts, training, evaluation.

    Its start is what the factory gives it, with PyTorch's global generator seeded by a key of the run's seed (and put
    back afterwards). It is tried on three images before the first work on images of a shape.

    Args:
        name: letters, digits, ``-`` and ``_``; not one of fastdd's.
        factory: a function or a class that makes a fresh ``nn.Module``: normalised images float32 [N, C, H, W] to
            logits [N, num_classes]. It is given ``num_classes``, and ``channels`` and ``size`` (height, width) where it
            names them.
        embed: what distribution matching matches: a layer, by its name in ``named_modules`` (its output, flattened), or
            a method. By default the network's own ``embed(images)``; without one, what its last linear layer is given.

    Raises:
        TypeError: a factory that can't be called so.
        ValueError: a name that is taken.
        TypeError, ValueError: later, when it is first built for images of a shape: parameters that are not float32 or
            not a function of PyTorch's seed, logits or embeddings of another shape, images without a gradient, dropout.

    A network on a GPU is built on the CPU, and its steps are not captured as CUDA graphs.

    >>> import fastdd, torch
    >>> def probe(channels, num_classes, size):
    ...     return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * size[0] * size[1], num_classes))
    >>> fastdd.register_network("linear-probe", probe)
    >>> fastdd.distill(fastdd.data.load("c-digits"), arch="linear-probe", ipc=1, iterations=1).images.shape
    torch.Size([10, 3, 16, 16])
    """
    models.register(name, factory, embed)


def register_method(name: str, kind: type[Method], *, settings: Mapping[str, Any] | None = None) -> None:
    """Make a method known by a name: ``method=name``, ``--method name``, with its settings as keywords and options.

    Before each of its runs two steps are done on a few images, the second one twice (:mod:`fastdd.methods.trial`);
    methods that follow experts are not tried.

    Args:
        name: as of :func:`register_network`.
        kind: a subclass of :class:`fastdd.methods.Method`, such as of ``Dm`` (docs/develop/add-a-method.md).
        settings: those that a run begins with, over the shipped ones of the fastdd method that it derives from.

    Raises:
        TypeError: no class of a method, or one without ``about``, ``source`` or ``Settings``.
        ValueError: a name that is taken; a setting that has no value, as neither presets nor ``settings`` have it.
    """
    methods.register(name, kind, settings)


def register_mode(
    name: str,
    segments: Callable[[Batch], Segments],
    *,
    about: str,
    needs: Literal["nothing", "groups", "weights", "embeddings"] = "nothing",
    in_training: Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray | None] | None = None,
    waits: bool = True,
) -> None:
    """Make a way to handle bias known by a name: ``debias=name``, ``--debias name``; tried on small batches first.

    Args:
        name: as of :func:`register_network`.
        segments: a batch's weighted segments (docs/develop/add-a-mode.md).
        about: one line for people.
        needs: what it goes by besides classes: ``nothing``, ``groups``, ``weights`` or ``embeddings``.
        in_training: how much every image's loss counts where experts are trained; None: the mode is for matching only.
        waits: whether it reads from the device, or makes as many segments as the batch decides. False lets a GPU
            capture steps as graphs.

    Raises:
        TypeError: no function, or segments, or weights in training, of other types.
        ValueError: a name that is taken, segments that do not fit together, weights that do not sum to 1.
    """
    for what, function in (("segments", segments), ("in_training", in_training)):
        if not callable(function) and (what, function) != ("in_training", None):
            raise TypeError(f"mode {name}: {what} is a function, not {type(function).__name__}")
    known = ("nothing", "groups", "weights", "embeddings")
    if needs not in known:
        raise ValueError(f"mode {name}: needs is one of {', '.join(known)}, not {needs!r}")
    if not isinstance(about, str) or not about.strip():
        raise TypeError(f"mode {name}: about is a line of text, not {about!r}")
    debias.register(name, Mode(" ".join(about.split()), segments, needs, in_training, waits))


def register_dataset(
    name: str,
    load: Callable[..., Dataset | Plan],
    *,
    about: str,
    arch: str = "ConvNet",
    width: int | None = None,
    depth: int | None = None,
) -> None:
    """Make a data set known by a name: ``fastdd.data.load(name)``, ``--dataset name``, ``fastdd data list``.

    Args:
        name: as of :func:`register_network`; the data set's own name becomes it.
        load: ``load(root, *, option=default, ...)``, with the folder of ``--data-root``, or without ``root``; its
            keyword-only parameters are the options of ``--data-option``. It returns a :class:`fastdd.data.Dataset`, and
            the same bytes for the same files and options.
        about: one line for people.
        arch, width, depth: the network that fits its images.

    Raises:
        TypeError: a function of other parameters; when it is called, a result that is no data set.
        ValueError: a name that is taken, or an unknown network.
    """
    architecture = Architecture(models.canonical_name(arch), width, depth)
    datasets.catalog.register(name, load, about, architecture)


def load_plugin(path: str | os.PathLike) -> None:
    """Run a Python file that registers one's own parts, as ``--plugin FILE`` does; once, unless it has changed.

    Runs record the file and its SHA-256. Another process loads it again by itself for such a run (``resume``,
    ``evaluate``), if the file has not changed and was loaded by name on this account before; processes that train
    experts and ranks load it too.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what it raised, with its line; nothing of it stays registered.
    """
    plugins.load(path)
