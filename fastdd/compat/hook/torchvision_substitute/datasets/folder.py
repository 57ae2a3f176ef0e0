"""Folders of image files, a folder a class."""

import os
from collections.abc import Callable
from typing import Any

from PIL import Image

from fastdd.compat.hook.torchvision_substitute.datasets.vision import VisionDataset
from fastdd.data.files.decode import FORMATS

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def pil_loader(path: str) -> Image.Image:
    """An image file as RGB."""
    with open(path, "rb") as file:
        return Image.open(file, formats=FORMATS).convert("RGB")


default_loader = pil_loader


class DatasetFolder(VisionDataset):
    """``samples``: (path, class) of every file below ROOT/CLASS with one of the extensions, in order of names."""

    def __init__(
        self,
        root: str,
        loader: Callable[[str], Any],
        extensions: tuple[str, ...] | None = None,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        is_valid_file: Callable[[str], bool] | None = None,
    ):
        super().__init__(root, transform=transform, target_transform=target_transform)
        if (extensions is None) == (is_valid_file is None):
            raise ValueError("give either extensions or is_valid_file")
        wanted = is_valid_file or (lambda path: path.lower().endswith(tuple(extensions)))
        self.loader, self.extensions = loader, extensions
        self.classes = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())
        if not self.classes:
            raise FileNotFoundError(f"{self.root} has no folders of classes")
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.samples = [
            (os.path.join(folder, file), index)
            for name, index in self.class_to_idx.items()
            for folder, _, files in sorted(os.walk(os.path.join(self.root, name), followlinks=True))
            for file in sorted(files)
            if wanted(os.path.join(folder, file))
        ]
        self.targets = [target for _, target in self.samples]
        empty = sorted(set(self.classes) - {self.classes[target] for target in set(self.targets)})
        if empty:
            raise FileNotFoundError(f"{self.root} has no images of {', '.join(empty[:5])}")

    def __getitem__(self, index: int):
        path, target = self.samples[index]
        return self._transformed(self.loader(path), target)

    def __len__(self) -> int:
        return len(self.samples)


class ImageFolder(DatasetFolder):
    """A :class:`DatasetFolder` of images."""

    def __init__(
        self,
        root: str,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        loader: Callable[[str], Any] = default_loader,
        is_valid_file: Callable[[str], bool] | None = None,
    ):
        super().__init__(
            root,
            loader,
            IMG_EXTENSIONS if is_valid_file is None else None,
            transform=transform,
            target_transform=target_transform,
            is_valid_file=is_valid_file,
        )
        self.imgs = self.samples
