"""CIFAR-10 and CIFAR-100 from the publisher's batches."""

import os
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from fastdd.compat.hook.torchvision_substitute.datasets.vision import VisionDataset, not_there
from fastdd.data.files import readers


class CIFAR10(VisionDataset):
    """``data`` uint8 [N, 32, 32, 3] (an array) and ``targets`` (a list)."""

    base_folder = "cifar-10-batches-py"

    def __init__(
        self,
        root: str,
        train: bool = True,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        download: bool = False,
    ):
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.train = train
        try:
            source, classes = self._read()
        except FileNotFoundError as error:
            folder = os.path.join(self.root, self.base_folder)
            not_there(type(self).__name__, f"the Python version of its files into {folder}", download, error)
        images, labels = (
            (source.train_images, source.train_labels) if train else (source.test_images, source.test_labels)
        )
        self.classes = list(classes)
        self.data = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.targets = labels.tolist()
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}

    def _read(self) -> tuple[readers.Source, Sequence[str]]:
        return readers.read_cifar10(self.root), readers.CIFAR10_CLASSES

    def __getitem__(self, index: int):
        return self._transformed(Image.fromarray(self.data[index]), self.targets[index])

    def __len__(self) -> int:
        return len(self.data)


class CIFAR100(CIFAR10):
    """The same of CIFAR-100, by its fine labels."""

    base_folder = "cifar-100-python"

    def _read(self) -> tuple[readers.Source, Sequence[str]]:
        return readers.read_cifar100(self.root)
