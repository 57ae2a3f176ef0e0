"""The data sets of distillation scripts: items as torchvision normalises them, many of them at once.

Files are those that :func:`fastdd.data.load` reads, in torchvision's folders too; nothing is downloaded.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fastdd.compat.shared.statistics import IMAGENET
from fastdd.core import bounds
from fastdd.core.reading import damage_of

if TYPE_CHECKING:
    from fastdd import data

__all__ = ["TensorDataset", "get_dataset"]

# Items that are normalised at a time when they are asked for one after the other.
_BLOCK = 256
_TEST_BATCH = 256

_NAMES = {
    "MNIST": "mnist",
    "FashionMNIST": "fashion-mnist",
    "SVHN": "svhn",
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
}


class TensorDataset(TorchDataset):
    """Images [N, C, H, W] and labels [N], an item of both a row.

    >>> import torch
    >>> images, labels = TensorDataset(torch.zeros(2, 1, 4, 4), torch.tensor([3, 5]))[1]
    >>> images.shape, labels
    (torch.Size([1, 4, 4]), tensor(5))
    """

    def __init__(self, images: Tensor, labels: Tensor):
        self.images = images.detach().float()
        self.labels = labels.detach()

    def __getitem__(self, index):
        return self.images[index], self.labels[index]

    def __len__(self) -> int:
        return self.images.shape[0]


class Pixels(TorchDataset):
    """A split of a data set at rest as uint8; an item is (normalised image, label) or (image, label, group).

    Images are float32 [C, H, W], ``(pixel / 255 - mean) / std``, to the bit as torchvision's ToTensor and Normalize
    make them; labels and groups are ints.

    Args:
        split: uint8 images, labels and groups.
        mean, std: of pixels in [0, 1], a value a channel.
        classes: names of the classes.
        with_groups: whether items have the group.

    Attributes:
        labels, groups: int64 [N]; groups is None without.
        classes: as given.
        targets: the labels, a list.

    One after the other, items are normalised in blocks: 50,000 of 3x32x32 take 0.3 s, a tenth of torchvision's time.
    """

    def __init__(
        self,
        split: "data.Split",
        mean: Sequence[float],
        std: Sequence[float],
        classes: Sequence[str],
        with_groups: bool = False,
    ):
        self.labels = torch.from_numpy(split.labels)
        self.groups = torch.from_numpy(split.groups) if with_groups else None
        self.classes, self.targets = list(classes), split.labels.tolist()
        self._pixels = torch.from_numpy(split.images)
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self._block = 0, torch.empty(0)

    def __len__(self) -> int:
        return len(self._pixels)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return pixels.float().div_(255).sub_(self._mean).div_(self._std)

    @property
    def images(self) -> Tensor:
        """float32 [N, C, H, W], normalised; made anew, and the caller's own."""
        return self._normalised(self._pixels)

    def read(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The images, labels and groups of int64 rows: what a loader would collate of the items."""
        columns = self._normalised(self._pixels[rows]), self.labels[rows]
        return columns if self.groups is None else (*columns, self.groups[rows])

    def _image(self, index: int) -> Tensor:
        first, block = self._block
        if not first <= index < first + len(block):
            following = index and index == first + len(block)
            first, block = index, self._normalised(self._pixels[index : index + (_BLOCK if following else 1)])
            self._block = first, block
        return block[index - first].clone()

    def __getitem__(self, index: int) -> tuple:
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        index %= len(self)
        item = self._image(index), self.targets[index]
        return item if self.groups is None else (*item, int(self.groups[index]))

    def __getitems__(self, indices: list[int]) -> list[tuple]:
        """What a DataLoader asks for: a batch's items."""
        images, *others = self.read(torch.as_tensor(indices))
        return list(zip(images, *(column.tolist() for column in others), strict=True))


def nine_values(dataset: "data.Dataset", names: list[str] | None = None, *, with_groups: bool) -> tuple:
    """What the scripts' get_dataset returns of a data set; ``names`` of its classes: None for its own."""
    mean, std, classes = dataset.mean, dataset.std, list(dataset.class_names)
    train, test = (Pixels(split, mean, std, classes, with_groups) for split in (dataset.train, dataset.test))
    loader = DataLoader(test, batch_size=_TEST_BATCH, shuffle=False)
    names = classes if names is None else list(names)
    return dataset.channels, tuple(dataset.size), dataset.num_classes, names, list(mean), list(std), train, test, loader


def _tiny_tensors(path: Path) -> "data.Dataset":
    """DC's ``tinyimagenet.pt``: the names of the classes, uint8 images and labels of both splits."""
    from fastdd import data
    from fastdd.exchange import torch_files

    content = torch_files.load(path)
    wanted = ("classes", "images_train", "labels_train", "images_val", "labels_val")
    missing = [name for name in wanted if not isinstance(content, dict) or name not in content]
    if missing:
        raise RuntimeError(f"{path} has no {', '.join(missing)}: it is not the published tinyimagenet.pt")
    with damage_of(path, "is not the published tinyimagenet.pt"):
        splits = []
        for part in ("train", "val"):
            if not all(bounds.is_plain(content[f"{kind}_{part}"]) for kind in ("images", "labels")):
                raise ValueError(f"its tensors of {part} are not plain values")
            images, labels = content[f"images_{part}"].numpy(), content[f"labels_{part}"].long().numpy()
            splits.append(data.Split(images, labels, np.zeros_like(labels)))
        provenance = {"builder": "tiny-imagenet", "files": [{"file": path.name}]}
        return data.Dataset("tiny-imagenet", *splits, tuple(content["classes"]), ("all",), *IMAGENET, provenance)


def get_dataset(dataset: str, data_path: str | os.PathLike) -> tuple:
    """DC's data sets: MNIST, FashionMNIST, SVHN, CIFAR10, CIFAR100, TinyImageNet (``tinyimagenet.pt``, or the images).

    Args:
        dataset: its published name.
        data_path: folder of the publisher's files, as torchvision or :func:`fastdd.data.load` has them.

    Returns:
        (channel, im_size, num_classes, class_names, mean, std, dst_train, dst_test, testloader), with :class:`Pixels`
        as the splits and batches of 256 from the loader.

    Raises:
        SystemExit: an unknown name.
        FileNotFoundError, RuntimeError: as :func:`fastdd.data.load`.
    """
    from fastdd import data

    if dataset in _NAMES:
        loaded = data.load(_NAMES[dataset], data_path)
    elif dataset == "TinyImageNet":
        tensors = Path(data_path) / "tinyimagenet.pt"
        loaded = _tiny_tensors(tensors) if tensors.is_file() else data.load("tiny-imagenet", data_path)
    else:
        raise SystemExit(f"unknown dataset: {dataset}")
    return nine_values(loaded, with_groups=False)
