"""The data sets by name: one door, :func:`load`, to the embedded, the published, the biased and one's own."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastdd.data import builders, readers
from fastdd.data.dataset import Dataset, Split
from fastdd.data.folder import load_folder
from fastdd.data.store import is_store, open_store


@dataclass(frozen=True)
class _Entry:
    description: str
    build: Callable[..., Dataset]
    publisher: readers.Publisher | None = None
    biased: bool = False


def _plain(name: str, source: readers.Source, class_names, mean, std) -> Dataset:
    splits = (
        Split(images, labels, np.zeros(len(labels), np.int64))
        for images, labels in (
            (source.train_images, source.train_labels),
            (source.test_images, source.test_labels),
        )
    )
    return Dataset(name, *splits, class_names, ("all",), mean, std, {"builder": name, "files": source.files})


def _mnist(source: readers.Source) -> Dataset:
    return _plain("mnist", source, builders.DIGITS, (0.1307,), (0.3081,))


def _fashion_mnist(source: readers.Source) -> Dataset:
    return _plain("fashion-mnist", source, builders.FASHION_CLASSES, (0.2861,), (0.3530,))


def _cifar10(source: readers.Source) -> Dataset:
    constants = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return _plain("cifar10", source, readers.CIFAR10_CLASSES, *constants)


_ENTRIES = {
    "c-digits": _Entry("embedded: 1,797 real 8x8 digits at 16x16, in ten colours", builders.c_digits, None, True),
    "mnist": _Entry("MNIST, 1x28x28", _mnist, readers.MNIST),
    "fashion-mnist": _Entry("Fashion-MNIST, 1x28x28", _fashion_mnist, readers.FASHION_MNIST),
    "cifar10": _Entry("CIFAR-10, 3x32x32", _cifar10, readers.CIFAR10),
    "c-mnist-fg": _Entry("C-MNIST (FG): digits in ten colours, 3x32x32", builders.c_mnist_fg, readers.MNIST, True),
    "c-mnist-bg": _Entry("C-MNIST (BG): backgrounds in ten colours, 3x32x32", builders.c_mnist_bg, readers.MNIST, True),
    "c-fmnist-fg": _Entry(
        "C-FMNIST (FG): Fashion-MNIST's objects in ten colours, 3x32x32",
        builders.c_fmnist_fg,
        readers.FASHION_MNIST,
        True,
    ),
    "c-fmnist-bg": _Entry(
        "C-FMNIST (BG): Fashion-MNIST on backgrounds in ten colours, 3x32x32",
        builders.c_fmnist_bg,
        readers.FASHION_MNIST,
        True,
    ),
    "cifar10-s": _Entry("CIFAR10-S: CIFAR-10, gray or colour, 3x32x32", builders.cifar10_s, readers.CIFAR10, True),
}
_FOLDER = "folder"


def available() -> dict[str, str]:
    """The names that :func:`load` knows, each with one line on what it is.

    >>> available()["mnist"]
    'MNIST, 1x28x28'
    """
    return {name: entry.description for name, entry in _ENTRIES.items()} | {
        _FOLDER: "one's own images: train/<class>/*.png and test/<class>/*.png (also jpg, webp, bmp) under the root"
    }


def load(
    name: str | os.PathLike,
    root: str | os.PathLike | None = None,
    *,
    bias_ratio: float | None = None,
    seed: int | None = None,
    size: int | None = None,
    groups_csv: str | os.PathLike | None = None,
) -> Dataset:
    """The data set of a name (:func:`available`), or of a packed store's folder.

    Args:
        name: a registered name, or the path of a packed store (:func:`~fastdd.data.store.save_store`).
        root: folder of the publisher's files, or one that holds them in a usual subfolder; for ``folder``, the images'.
        bias_ratio: of a biased set: share of a class's training images in its majority group, 0..1; published: 0.9.
        seed: of a biased set's draws; the published builder's by default.
        size: of ``folder``: height and width in pixels; 32 by default.
        groups_csv: of ``folder``: file of the groups; ``groups.csv`` under the root by default, if it is there.

    Raises:
        ValueError: an unknown name, a ratio outside [0, 1], or an option that the data set does not have.
        FileNotFoundError: no root, or files missing: names them, the folders looked in, and where they are offered.
        RuntimeError: a damaged file, naming it.

    Deterministic: the same files and arguments give the same bytes. C-MNIST takes about two seconds to build.

    >>> digits = load("c-digits")
    >>> digits.train.images.shape, digits.num_groups
    ((1297, 3, 16, 16), 10)
    """
    options = {"bias_ratio": bias_ratio, "seed": seed, "size": size, "groups_csv": groups_csv}
    given = {option: value for option, value in options.items() if value is not None}
    if bias_ratio is not None:
        if not 0 <= bias_ratio <= 1:
            raise ValueError(f"bias_ratio must lie in 0..1, not {bias_ratio}")
        given["bias_ratio"] = float(bias_ratio)
    if seed is not None:
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must lie in 0..{2**32 - 1}, not {seed}")
        given["seed"] = int(seed)

    if name == _FOLDER:
        _refuse(given, {"size", "groups_csv"}, name)
        return load_folder(root, **given)
    entry = _ENTRIES.get(name) if isinstance(name, str) else None
    if entry is None:
        if not is_store(name):
            raise _unknown(name)
        _refuse(given, set(), name)
        return open_store(name)
    _refuse(given, {"bias_ratio", "seed"} if entry.biased else set(), name)
    if entry.publisher is None:
        return entry.build(**given)
    read = readers.read_cifar10 if entry.publisher is readers.CIFAR10 else _read_mnist(entry.publisher)
    return entry.build(read(root), **given)


def _read_mnist(publisher: readers.Publisher):
    return lambda root: readers.read_mnist_files(root, publisher)


def _refuse(given: dict, known: set[str], name) -> None:
    for option in given:
        if option not in known:
            raise ValueError(f"{name} has no {option}: it can't be {given[option]!r}; leave it out")


def _unknown(name: str | os.PathLike) -> ValueError:
    names = list(available())
    if Path(name).is_dir():
        return ValueError(f"{name} is not a packed store; if it holds images, load 'folder' with it as the root")
    close = difflib.get_close_matches(str(name), names, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return ValueError(f"unknown data set {str(name)!r}: {hint}known are {', '.join(names)}, or a packed store's folder")
