"""FairDD's data sets: DC's, with the protected group in every item."""

import os

from fastdd.compat.dc import datasets as dc
from fastdd.compat.dc.datasets import *

__all__ = dc.__all__

_DIGITS = [str(digit) for digit in range(10)]
# Published name: this package's, and the class names where the script has its own.
_NAMES: dict[str, tuple[str, list[str] | None]] = {
    "CIFAR10_S_90": ("cifar10-s", ["ss"]),
    "Colored_MNIST_foreground": ("c-mnist-fg", _DIGITS),
    "Colored_MNIST_background": ("c-mnist-bg", _DIGITS),
    "Colored_FashionMNIST_foreground": ("c-fmnist-fg", None),
    "Colored_FashionMNIST_background": ("c-fmnist-bg", None),
    "UTKface": ("utkface", ["0-19", "20-40", "40-"]),
    "CelebA": ("celeba", ["attractive", "no_attractive"]),
    "BFFHQ": ("bffhq", ["0", "1"]),
}


def get_dataset(dataset: str, data_path: str | os.PathLike) -> tuple:
    """FairDD's data sets: :func:`fastdd.compat.dc.get_dataset` with (image, label, group) as items.

    Colored_MNIST_foreground and _background, Colored_FashionMNIST_foreground and _background, CIFAR10_S_90, UTKface,
    CelebA (attractive by gender) and BFFHQ, with the published bias, counts and constants. Colored MNIST is that of the
    published code, image by image; the global generators are left alone, where that code seeds them with 30.

    Args, errors: as :func:`fastdd.compat.dc.get_dataset`; CelebA and UTKface lie below ``data_path`` too.
    """
    if dataset not in _NAMES:
        raise SystemExit(f"unknown dataset: {dataset}")
    from fastdd import data

    name, names = _NAMES[dataset]
    loaded = data.load(name, data_path)
    return dc.nine_values(loaded, names, with_groups=True)
