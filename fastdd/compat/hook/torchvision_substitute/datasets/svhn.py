"""SVHN's cropped digits."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from fastdd.compat.hook.torchvision_substitute.datasets.vision import VisionDataset, not_there
from fastdd.data.files import readers


class SVHN(VisionDataset):
    """``data`` uint8 [N, 3, 32, 32] and ``labels`` int64 [N] (arrays), from the two .mat files below the root."""

    def __init__(
        self,
        root: str,
        split: str = "train",
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        download: bool = False,
    ):
        super().__init__(root, transform=transform, target_transform=target_transform)
        if split not in ("train", "test"):
            raise ValueError(f"split must be train or test, not {split!r}")
        self.split = split
        try:
            source = readers.read_svhn(self.root)
        except FileNotFoundError as error:
            not_there("SVHN", f"train_32x32.mat and test_32x32.mat into {self.root}", download, error)
        self.data, self.labels = (
            (source.train_images, source.train_labels) if split == "train" else (source.test_images, source.test_labels)
        )

    def __getitem__(self, index: int):
        return self._transformed(Image.fromarray(np.transpose(self.data[index], (1, 2, 0))), int(self.labels[index]))

    def __len__(self) -> int:
        return len(self.data)
