"""What published distillation code calls data sets, and what it normalises them with."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from fastdd.data.files.readers import CIFAR10_CLASSES
from fastdd.data.sets.builders import DIGITS, FASHION_CLASSES
from fastdd.data.sets.imagenet import IMAGENET_MEAN, IMAGENET_STD, SUBSETS, TINY_CLASSES

# res_METHOD_DATASET_MODEL_IPCipc.pt; data sets have underscores in their names, and so have networks that end in _AP.
# Forks add a word; FairDD's res_..._ori.pt beside it are networks.
_RESULT = re.compile(r"res_(?P<method>[^_]+)_(?P<dataset>.+)_(?P<model>[^_]+_AP|(?!AP_)[^_]+)_(?P<ipc>\d+)ipc(_.*)?")
_NEAREST_FOLDERS = 5


@dataclass(frozen=True)
class Published:
    """A data set in published code.

    Args:
        mean, std: one value a channel, for pixels scaled to [0, 1].
        class_names: in the labels' order; their numbers where only the data set's files name them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


_HALF = (0.5,) * 3
_CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
# By the catalog's names. Faces are as in FairDD's code; the catalog's own are normalised by their pixels.
DATASETS = {
    "mnist": Published((0.1307,), (0.3081,), DIGITS),
    "fashion-mnist": Published((0.2861,), (0.3530,), FASHION_CLASSES),
    "cifar10": Published(*_CIFAR10, CIFAR10_CLASSES),
    "cifar100": Published((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762), _numbers(100)),
    "svhn": Published((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), DIGITS),
    "c-mnist-fg": Published(_HALF, _HALF, DIGITS),
    "c-mnist-bg": Published(_HALF, _HALF, DIGITS),
    "c-fmnist-fg": Published(_HALF, _HALF, FASHION_CLASSES),
    "c-fmnist-bg": Published(_HALF, _HALF, FASHION_CLASSES),
    "cifar10-s": Published(
        (0.4890520609319886, 0.48451061542917323, 0.46714946730198426),
        (0.24278049202200438, 0.24082296066838135, 0.25098309397306334),
        CIFAR10_CLASSES,
    ),
    "bffhq": Published(*_CIFAR10, _numbers(2)),
    "celeba": Published((0.5063, 0.4258, 0.3832), (0.2676, 0.2453, 0.2410), _numbers(2)),
    "utkface": Published(
        (0.6135867892520825, 0.4722519020075052, 0.4070309090621279),
        (0.25492949231398077, 0.23054187352850616, 0.22834804939251105),
        _numbers(3),
    ),
    **dict.fromkeys(
        ("tiny-imagenet", "tiny-imagenet-s"), Published(IMAGENET_MEAN, IMAGENET_STD, _numbers(TINY_CLASSES))
    ),
    **{
        f"{name}{suffix}": Published(IMAGENET_MEAN, IMAGENET_STD, tuple(classes.values()))
        for name, classes in SUBSETS.items()
        for suffix in ("", "-s")
    },
}

# The code of trajectory matching and of IDC, where it differs.
_OTHERS = {"cifar100": replace(DATASETS["cifar100"], mean=_CIFAR10[0], std=_CIFAR10[1])}

# What codes call them; the first of a data set's is the one to write.
NAMES = {
    "MNIST": "mnist",
    "FashionMNIST": "fashion-mnist",
    "fashion": "fashion-mnist",
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
    "SVHN": "svhn",
    "TinyImageNet": "tiny-imagenet",
    "Tiny": "tiny-imagenet",
    "Colored_MNIST_foreground": "c-mnist-fg",
    "Colored_MNIST_background": "c-mnist-bg",
    "Colored_FashionMNIST_foreground": "c-fmnist-fg",
    "Colored_FashionMNIST_background": "c-fmnist-bg",
    "CIFAR10_S_90": "cifar10-s",
    "BFFHQ": "bffhq",
    "CelebA": "celeba",
    "UTKface": "utkface",
    **{name: name for name in SUBSETS},
}
_BY_LOWER = {name.lower(): dataset for name, dataset in NAMES.items()}


def constants(dataset: str, format: str) -> Published | None:
    """What the code that writes ``format`` has of a data set; None if nothing is known."""
    known = DATASETS.get(dataset)
    return _OTHERS.get(dataset, known) if format in ("mtt", "idc") else known


def of_result(path: Path) -> dict[str, str]:
    """method, dataset, model and ipc that ``res_..._ipc.pt`` names; nothing if it is called otherwise.

    >>> of_result(Path("res_DM_CIFAR10_S_90_ResNet18_AP_10ipc.pt"))
    {'method': 'DM', 'dataset': 'CIFAR10_S_90', 'model': 'ResNet18_AP', 'ipc': '10'}
    """
    match = _RESULT.fullmatch(path.stem)
    return match.groupdict() if match and path.suffix in (".pt", ".pth") else {}


def _names_in(path: Path) -> list[str]:
    if found := of_result(path).get("dataset"):
        return [found]
    parts = list(path.absolute().parts[: -_NEAREST_FOLDERS - 1 : -1])
    return [*parts, *(part.partition("_ipc_")[0] for part in parts if "_ipc_" in part)]  # IDM's CIFAR10_ipc_10_aug_...


def dataset_of(path: Path) -> str | None:
    """The catalog's name of the data set that a file or one of its folders names; None if none does."""
    return next((_BY_LOWER[name.lower()] for name in _names_in(path) if name.lower() in _BY_LOWER), None)


def hint(path: Path) -> str:
    """What the options may be, judged by the names; empty if they tell nothing."""
    dataset = dataset_of(path)
    return "" if dataset is None else f"{path} looks like --dataset {dataset}"


def name_of(dataset: str | None) -> str:
    """What published code calls a data set of the catalog; its own name if it has none."""
    return next((name for name, known in NAMES.items() if known == dataset), dataset or "unknown")
