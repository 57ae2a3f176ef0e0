"""MTT's data sets: DC's, ImageNet's subsets besides, whitened where a script wants that."""

import os
from argparse import Namespace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fastdd.compat.dc import datasets as dc
from fastdd.compat.dc.datasets import *
from fastdd.compat.mtt.subsets import IMAGENET_NUMBERS, imagenet_labels
from fastdd.compat.shared.statistics import CIFAR10, IMAGENET

if TYPE_CHECKING:
    from fastdd.data import Zca

__all__ = dc.__all__

_TEST_BATCH = 128


class Whitening:
    """ZCA as MTT's scripts use it: called, it whitens images in [0, 1]; ``inverse_transform`` takes that back."""

    def __init__(self, zca: "Zca"):
        self._zca = zca

    def __call__(self, images: Tensor) -> Tensor:
        mean, matrix = self._zca.mean.to(images.device), self._zca.matrix.to(images.device)
        return ((images.flatten(1) - mean) @ matrix).view(images.shape)

    def inverse_transform(self, images: Tensor) -> Tensor:
        return self._zca.unwhiten(images)


def get_dataset(
    dataset: str,
    data_path: str | os.PathLike,
    batch_size: int = 1,
    subset: str = "imagenette",
    args: Namespace | None = None,
) -> tuple:
    """MTT's data sets: CIFAR10, CIFAR100, Tiny, and ImageNet with a subset of ten classes, at 128x128.

    CIFAR100 has CIFAR10's constants, as published. ImageNet's labels are the classes' numbers among the 1,000, which
    ``class_map`` turns into the subset's; pixels are resized by this package (Pillow), so they differ in their last
    digits from torchvision's.

    Args:
        dataset: its published name.
        data_path: folder of the publisher's files.
        batch_size: of the training loaders of ImageNet's classes.
        subset: of ImageNet.
        args: with ``zca`` the images are whitened in place of normalised, on ``args.device``, and ``args.zca_trans`` is
            set to a :class:`Whitening`.

    Returns:
        The nine values of :func:`fastdd.compat.dc.get_dataset`, with batches of 128 from the loader, then
        loader_train_dict, class_map and class_map_inv (the first and the last are None but for ImageNet).

    Raises:
        SystemExit: an unknown name.
        FileNotFoundError, RuntimeError: as :func:`fastdd.data.load`.
    """
    from fastdd import data

    loaders = class_map = class_map_inv = None
    if dataset == "CIFAR10":
        loaded, scale = data.load("cifar10", data_path), CIFAR10
    elif dataset.startswith("CIFAR100"):
        loaded, scale = data.load("cifar100", data_path), CIFAR10
    elif dataset == "Tiny":
        loaded, scale = data.load("tiny-imagenet", data_path), IMAGENET
    elif dataset == "ImageNet":
        imagenet_labels(subset)
        loaded, scale = data.load(subset, data_path), IMAGENET
    else:
        raise SystemExit(f"unknown dataset: {dataset}")
    splits, class_names = [loaded.train, loaded.test], list(loaded.class_names)
    class_map = {label: label for label in range(loaded.num_classes)}
    if dataset == "ImageNet":
        numbers, class_names = IMAGENET_NUMBERS[subset], None
        class_map = {number: label for label, number in enumerate(numbers)}
        class_map_inv = dict(enumerate(numbers))
        splits = [data.Split(split.images, np.array(numbers)[split.labels], split.groups) for split in splits]
    if args is not None and args.zca:
        zca = data.Zca.fit(splits[0].images, device=args.device)
        train, test = (
            TensorDataset(zca.whiten(split.images, args.device).cpu(), torch.from_numpy(split.labels))
            for split in splits
        )
        args.zca_trans = Whitening(zca)
    else:
        train, test = (dc.Pixels(split, *scale, loaded.class_names) for split in splits)
    if dataset == "ImageNet":
        rows = [np.flatnonzero(splits[0].labels == number).tolist() for number in numbers]
        loaders = {
            label: DataLoader(Subset(train, members), batch_size=batch_size, shuffle=True)
            for label, members in enumerate(rows)
        }
    loader = DataLoader(test, batch_size=_TEST_BATCH, shuffle=False)
    mean, std = (list(values) for values in scale)
    nine = loaded.channels, tuple(loaded.size), loaded.num_classes, class_names, mean, std, train, test, loader
    return *nine, loaders, class_map, class_map_inv
