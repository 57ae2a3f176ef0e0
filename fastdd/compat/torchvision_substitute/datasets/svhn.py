"""SVHN's cropped digits."""

import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from fastdd.compat.torchvision_substitute.datasets.vision import VisionDataset, not_there
from fastdd.compat.torchvision_substitute.missing import missing


def __getattr__(name: str) -> type:
    return missing(f"datasets.svhn.{name}")


class SVHN(VisionDataset):
    """``data`` uint8 [N, 3, 32, 32] and ``labels`` int64 [N] (arrays), from ``SPLIT_32x32.mat`` below the root."""

    def __init__(
        self,
        root: str,
        split: str = "train",
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        download: bool = False,
    ):
        import scipy.io

        super().__init__(root, transform=transform, target_transform=target_transform)
        if split not in ("train", "test", "extra"):
            raise ValueError(f"split must be train, test or extra, not {split!r}")
        self.split = split
        path = os.path.join(self.root, f"{split}_32x32.mat")
        try:
            content = scipy.io.loadmat(path)
        except FileNotFoundError as error:
            not_there("SVHN", f"{split}_32x32.mat into {self.root}", download, error)
        self.data = np.transpose(content["X"], (3, 2, 0, 1))
        # The publisher's label of digit 0 is 10.
        self.labels = content["y"].astype(np.int64).squeeze() % 10

    def __getitem__(self, index: int):
        return self._transformed(Image.fromarray(np.transpose(self.data[index], (1, 2, 0))), int(self.labels[index]))

    def __len__(self) -> int:
        return len(self.data)
