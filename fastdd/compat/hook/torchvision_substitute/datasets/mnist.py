"""MNIST and Fashion-MNIST from their IDX files, unpacked or gzipped."""

import os
from collections.abc import Callable

import torch
from PIL import Image

from fastdd.compat.hook.torchvision_substitute.datasets.vision import VisionDataset, not_there
from fastdd.data.files import readers


class MNIST(VisionDataset):
    """``data`` uint8 [N, 28, 28] and ``targets`` int64 [N], from the four files in ``raw_folder``."""

    publisher = readers.MNIST
    classes = (
        *("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"),
        *("5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine"),
    )

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
            source = readers.read_mnist_files(self.raw_folder, self.publisher)
        except FileNotFoundError as error:
            not_there(type(self).__name__, f"its four IDX files into {self.raw_folder}", download, error)
        images, labels = (
            (source.train_images, source.train_labels) if train else (source.test_images, source.test_labels)
        )
        self.data, self.targets = torch.from_numpy(images[:, 0]), torch.from_numpy(labels)
        self.classes = list(self.classes)

    @property
    def raw_folder(self) -> str:
        return os.path.join(self.root, type(self).__name__, "raw")

    @property
    def processed_folder(self) -> str:
        return os.path.join(self.root, type(self).__name__, "processed")

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes)}

    def __getitem__(self, index: int):
        return self._transformed(Image.fromarray(self.data[index].numpy()), int(self.targets[index]))

    def __len__(self) -> int:
        return len(self.data)


class FashionMNIST(MNIST):
    """The same of Fashion-MNIST."""

    publisher = readers.FASHION_MNIST
    classes = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
