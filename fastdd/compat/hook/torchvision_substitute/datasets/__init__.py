"""Data sets in torchvision's layout of files, with its attributes."""

from fastdd.compat.hook.torchvision_substitute.datasets import utils
from fastdd.compat.hook.torchvision_substitute.datasets.cifar import CIFAR10, CIFAR100
from fastdd.compat.hook.torchvision_substitute.datasets.folder import DatasetFolder, ImageFolder
from fastdd.compat.hook.torchvision_substitute.datasets.mnist import MNIST, FashionMNIST
from fastdd.compat.hook.torchvision_substitute.datasets.svhn import SVHN
from fastdd.compat.hook.torchvision_substitute.datasets.vision import VisionDataset

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "SVHN",
    "DatasetFolder",
    "FashionMNIST",
    "ImageFolder",
    "VisionDataset",
    "utils",
]
