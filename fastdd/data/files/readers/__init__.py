"""Readers of the publishers' own files: IDX (MNIST, Fashion-MNIST), CIFAR-10 (binary, Python, archives), CIFAR-100
(Python, archive), SVHN (cropped digits)."""

from fastdd.data.files.readers.cifar import (
    CIFAR10_CLASSES,
    CIFAR10_NORMALISATION,
    parse_cifar_binary,
    parse_cifar_python,
    read_cifar10,
    read_cifar100,
)
from fastdd.data.files.readers.idx import (
    FASHION_MNIST,
    MNIST,
    parse_idx,
    read_fashion_mnist,
    read_mnist,
    read_mnist_files,
)
from fastdd.data.files.readers.publisher import Source, describe, describe_file, no_root, read_file
from fastdd.data.files.readers.svhn import read_svhn

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR10_NORMALISATION",
    "FASHION_MNIST",
    "MNIST",
    "Source",
    "describe",
    "describe_file",
    "no_root",
    "parse_cifar_binary",
    "parse_cifar_python",
    "parse_idx",
    "read_cifar10",
    "read_cifar100",
    "read_fashion_mnist",
    "read_file",
    "read_mnist",
    "read_mnist_files",
    "read_svhn",
]
