"""The data sets as published, without a protected attribute: one group. Mean and std are those of published code."""

import numpy as np

from fastdd.data.dataset import Dataset, Split
from fastdd.data.files import readers
from fastdd.data.files.readers import Source
from fastdd.data.sets.builders import DIGITS, FASHION_CLASSES


def _plain(name: str, source: Source, class_names, mean, std) -> Dataset:
    splits = (
        Split(images, labels, np.zeros(len(labels), np.int64))
        for images, labels in (
            (source.train_images, source.train_labels),
            (source.test_images, source.test_labels),
        )
    )
    return Dataset(name, *splits, class_names, ("all",), mean, std, {"builder": name, "files": source.files})


def mnist(root) -> Dataset:
    """MNIST, 1x28x28, 60,000 + 10,000 images (:func:`~fastdd.data.files.readers.read_mnist`)."""
    return _plain("mnist", readers.read_mnist(root), DIGITS, (0.1307,), (0.3081,))


def fashion_mnist(root) -> Dataset:
    """Fashion-MNIST, 1x28x28, 60,000 + 10,000 images (:func:`~fastdd.data.files.readers.read_fashion_mnist`)."""
    return _plain("fashion-mnist", readers.read_fashion_mnist(root), FASHION_CLASSES, (0.2861,), (0.3530,))


def cifar10(root) -> Dataset:
    """CIFAR-10, 3x32x32, 50,000 + 10,000 images (:func:`~fastdd.data.files.readers.read_cifar10`)."""
    return _plain("cifar10", readers.read_cifar10(root), readers.CIFAR10_CLASSES, *readers.CIFAR10_NORMALISATION)


def cifar100(root) -> Dataset:
    """CIFAR-100, 3x32x32, 50,000 + 10,000 images (:func:`~fastdd.data.files.readers.read_cifar100`)."""
    source, class_names = readers.read_cifar100(root)
    return _plain("cifar100", source, class_names, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))


def svhn(root) -> Dataset:
    """SVHN's cropped digits, 3x32x32, 73,257 + 26,032 images (:func:`~fastdd.data.files.readers.read_svhn`)."""
    return _plain("svhn", readers.read_svhn(root), DIGITS, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
