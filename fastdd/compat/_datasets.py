"""The data sets of distillation scripts: items as torchvision normalises them, many of them at once.

Files are those that :func:`fastdd.data.load` reads, in torchvision's folders too; nothing is downloaded.
"""

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torch.utils.data import Dataset as TorchDataset

from fastdd import data
from fastdd.data import Split, Zca
from fastdd.data.sets import builders

# Items that are normalised at a time when they are asked for one after the other.
_BLOCK = 256
_TEST_BATCH, _TEST_BATCH_MTT = 256, 128

_DIGITS = [*builders.DIGITS]
_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_CIFAR10 = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
_DC = {
    "MNIST": "mnist",
    "FashionMNIST": "fashion-mnist",
    "SVHN": "svhn",
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
}
# Published name: this package's, and the class names where the script has its own.
_FAIRDD: dict[str, tuple[str, list[str] | None]] = {
    "CIFAR10_S_90": ("cifar10-s", ["ss"]),
    "Colored_MNIST_foreground": ("c-mnist-fg", _DIGITS),
    "Colored_MNIST_background": ("c-mnist-bg", _DIGITS),
    "Colored_FashionMNIST_foreground": ("c-fmnist-fg", None),
    "Colored_FashionMNIST_background": ("c-fmnist-bg", None),
    "UTKface": ("utkface", ["0-19", "20-40", "40-"]),
    "CelebA": ("celeba", ["attractive", "no_attractive"]),
    "BFFHQ": ("bffhq", ["0", "1"]),
}
# MTT's subsets of ImageNet: the numbers of their classes among the 1,000, in the order of their labels.
IMAGENET_NUMBERS = {
    "imagenette": (0, 217, 482, 491, 497, 566, 569, 571, 574, 701),
    "imagewoof": (193, 182, 258, 162, 155, 167, 159, 273, 207, 229),
    "imagefruit": (953, 954, 949, 950, 951, 957, 952, 945, 943, 948),
    "imageyellow": (309, 986, 954, 951, 987, 779, 599, 291, 72, 11),
    "imagemeow": (281, 282, 283, 284, 285, 291, 292, 290, 289, 287),
    "imagesquawk": (84, 130, 88, 144, 145, 22, 96, 9, 100, 89),
}


def imagenet_labels(subset: str) -> Tensor:
    """int64 [1000]: the label in a subset of each of ImageNet's classes, -1 of the others.

    Raises:
        ValueError: an unknown subset.
    """
    if subset not in IMAGENET_NUMBERS:
        raise ValueError(f"unknown ImageNet subset {subset!r}; one of: {', '.join(IMAGENET_NUMBERS)}")
    numbers = torch.tensor(IMAGENET_NUMBERS[subset])
    return torch.full((1000,), -1).index_copy_(0, numbers, torch.arange(len(numbers)))


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
        split: Split,
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


def _result(
    found: data.Dataset, mean: Sequence[float], std: Sequence[float], names: list[str] | None, *, with_groups: bool
) -> tuple:
    """The nine values of the scripts' get_dataset."""
    classes = list(found.class_names)
    train, test = (Pixels(split, mean, std, classes, with_groups) for split in (found.train, found.test))
    loader = DataLoader(test, batch_size=_TEST_BATCH, shuffle=False)
    names = classes if names is None else list(names)
    return found.channels, tuple(found.size), found.num_classes, names, list(mean), list(std), train, test, loader


def _tiny_tensors(path: Path) -> data.Dataset:
    """DC's ``tinyimagenet.pt``: the names of the classes, uint8 images and labels of both splits."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    wanted = ("classes", "images_train", "labels_train", "images_val", "labels_val")
    missing = [name for name in wanted if name not in content]
    if missing:
        raise RuntimeError(f"{path} has no {', '.join(missing)}: it is not the published tinyimagenet.pt")
    splits = []
    for part in ("train", "val"):
        images, labels = content[f"images_{part}"].numpy(), content[f"labels_{part}"].long().numpy()
        splits.append(Split(images, labels, np.zeros_like(labels)))
    provenance = {"builder": "tiny-imagenet", "files": [{"file": path.name}]}
    return data.Dataset(
        "tiny-imagenet", *splits, tuple(content["classes"]), ("all",), *map(tuple, _IMAGENET), provenance
    )


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
    if dataset in _DC:
        found = data.load(_DC[dataset], data_path)
    elif dataset == "TinyImageNet":
        tensors = Path(data_path) / "tinyimagenet.pt"
        found = _tiny_tensors(tensors) if tensors.is_file() else data.load("tiny-imagenet", data_path)
    else:
        raise SystemExit(f"unknown dataset: {dataset}")
    return _result(found, found.mean, found.std, None, with_groups=False)


def get_dataset_fairdd(dataset: str, data_path: str | os.PathLike) -> tuple:
    """FairDD's data sets: :func:`get_dataset` with (image, label, group) as items.

    Colored_MNIST_foreground and _background, Colored_FashionMNIST_foreground and _background, CIFAR10_S_90, UTKface,
    CelebA (attractive by gender) and BFFHQ, with the published bias, counts and constants. Which images get which
    colour is this package's draw, not the published code's; the global generators are left alone, where the published
    code seeds them with 30.

    Args, errors: as :func:`get_dataset`; CelebA and UTKface lie below ``data_path`` too.
    """
    if dataset not in _FAIRDD:
        raise SystemExit(f"unknown dataset: {dataset}")
    name, names = _FAIRDD[dataset]
    found = data.load(name, data_path)
    return _result(found, found.mean, found.std, names, with_groups=True)


class Whitening:
    """ZCA as MTT's scripts use it: called, it whitens images in [0, 1]; ``inverse_transform`` takes that back."""

    def __init__(self, zca: Zca):
        self._zca = zca

    def __call__(self, images: Tensor) -> Tensor:
        mean, matrix = self._zca.mean.to(images.device), self._zca.matrix.to(images.device)
        return ((images.flatten(1) - mean) @ matrix).view(images.shape)

    def inverse_transform(self, images: Tensor) -> Tensor:
        return self._zca.unwhiten(images)


def get_dataset_mtt(
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
        The nine values of :func:`get_dataset`, with batches of 128 from the loader, then loader_train_dict, class_map
        and class_map_inv (the first and the last are None but for ImageNet).

    Raises:
        SystemExit: an unknown name.
        FileNotFoundError, RuntimeError: as :func:`fastdd.data.load`.
    """
    loaders = class_map = class_map_inv = None
    if dataset == "CIFAR10":
        found, scale = data.load("cifar10", data_path), _CIFAR10
    elif dataset.startswith("CIFAR100"):
        found, scale = data.load("cifar100", data_path), _CIFAR10
    elif dataset == "Tiny":
        found, scale = data.load("tiny-imagenet", data_path), _IMAGENET
    elif dataset == "ImageNet":
        imagenet_labels(subset)
        found, scale = data.load(subset, data_path), _IMAGENET
    else:
        raise SystemExit(f"unknown dataset: {dataset}")
    splits, class_names = [found.train, found.test], list(found.class_names)
    class_map = {label: label for label in range(found.num_classes)}
    if dataset == "ImageNet":
        numbers, class_names = IMAGENET_NUMBERS[subset], None
        class_map = {number: label for label, number in enumerate(numbers)}
        class_map_inv = dict(enumerate(numbers))
        splits = [Split(split.images, np.array(numbers)[split.labels], split.groups) for split in splits]
    if args is not None and args.zca:
        zca = Zca.fit(splits[0].images, device=args.device)
        train, test = (
            TensorDataset(zca.whiten(split.images, args.device).cpu(), torch.from_numpy(split.labels))
            for split in splits
        )
        args.zca_trans = Whitening(zca)
    else:
        train, test = (Pixels(split, *scale, found.class_names) for split in splits)
    if dataset == "ImageNet":
        rows = [np.flatnonzero(splits[0].labels == number).tolist() for number in numbers]
        loaders = {
            label: DataLoader(Subset(train, own), batch_size=batch_size, shuffle=True) for label, own in enumerate(rows)
        }
    loader = DataLoader(test, batch_size=_TEST_BATCH_MTT, shuffle=False)
    mean, std = (list(values) for values in scale)
    nine = found.channels, tuple(found.size), found.num_classes, class_names, mean, std, train, test, loader
    return *nine, loaders, class_map, class_map_inv
