"""CIFAR-10 and CIFAR-100 from the publisher's batches."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fastdd.compat.torchvision_substitute.datasets.vision import VisionDataset, not_there
from fastdd.compat.torchvision_substitute.missing import missing
from fastdd.data import readers


def __getattr__(name: str) -> type:
    return missing(f"datasets.cifar.{name}")


class _Names(pickle.Unpickler):
    """Lists and strings only: a pickle can otherwise run any code."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a list of names does not need")


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
            images, labels, self.classes = self._read()
        except FileNotFoundError as error:
            folder = os.path.join(self.root, self.base_folder)
            not_there(type(self).__name__, f"the Python version of its files into {folder}", download, error)
        self.data = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.targets = labels.tolist()
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}

    def _read(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        source = readers.read_cifar10(self.root)
        if self.train:
            return source.train_images, source.train_labels, list(readers.CIFAR10_CLASSES)
        return source.test_images, source.test_labels, list(readers.CIFAR10_CLASSES)

    def __getitem__(self, index: int):
        return self._transformed(Image.fromarray(self.data[index]), self.targets[index])

    def __len__(self) -> int:
        return len(self.data)


class CIFAR100(CIFAR10):
    """The same of CIFAR-100, by its fine labels."""

    base_folder = "cifar-100-python"

    def _read(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        folder = Path(self.root, self.base_folder)
        path = folder / ("train" if self.train else "test")
        images, labels = readers.parse_cifar_python(path.read_bytes(), str(path), field="fine_labels")
        try:
            names = _Names(io.BytesIO((folder / "meta").read_bytes()), encoding="latin1").load()["fine_label_names"]
        except (pickle.UnpicklingError, KeyError, TypeError, EOFError) as error:
            raise RuntimeError(f"{folder / 'meta'} is not CIFAR-100's: {error}") from None
        return images, labels, names
