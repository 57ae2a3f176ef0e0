"""Normalisation and augmentation in a row, as IDC's ``condense`` makes them of its arguments."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastdd.compat.idc.augmentation import DiffAug
from fastdd.compat.idc.device import device_or_default
from fastdd.compat.shared.statistics import CIFAR10, IMAGENET

__all__ = ["MEANS", "STDS", "Compose", "Normalize", "diffaug", "remove_aug"]

_STATISTICS = {
    "cifar": CIFAR10,
    "cifar10": CIFAR10,
    "cifar100": CIFAR10,
    "imagenet": IMAGENET,
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion": ((0.2861,), (0.3530,)),
}
MEANS = {name: [*mean] for name, (mean, _) in _STATISTICS.items()}
STDS = {name: [*std] for name, (_, std) in _STATISTICS.items()}


class Normalize:
    """``(x - mean) / std`` by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: Any = "cpu"):
        self.mean, self.std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (mean, std))

    def __call__(self, x: Tensor, seed: int = -1) -> Tensor:
        return (x - self.mean) / self.std


class Compose:
    """Functions, one after another."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = transforms

    def __call__(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x


def remove_aug(augtype: str, remove_aug: str) -> str:
    """A strategy without the operations of another.

    >>> remove_aug("color_crop_cutout", "cutout")
    'color_crop'
    """
    removed = remove_aug.split("_")
    return "_".join(name for name in augtype.split("_") if name not in removed)


def diffaug(args: Any, device: Any = None, *, rng: str | None = None) -> tuple[Compose, Compose]:
    """Normalisation and augmentation, for matching (one transform a batch) and for training networks (one an image).

    Reads ``args.aug_type``, ``args.dataset`` and ``args.mixup_net``: with CutMix, networks are trained without cutout.
    """
    normalize = Normalize(MEANS[args.dataset], STDS[args.dataset], device_or_default(device))
    strategy = remove_aug(args.aug_type, "cutout") if args.mixup_net == "cut" else args.aug_type
    return (
        Compose([normalize, DiffAug(args.aug_type, batch=True, rng=rng)]),
        Compose([normalize, DiffAug(strategy, batch=False, rng=rng)]),
    )
