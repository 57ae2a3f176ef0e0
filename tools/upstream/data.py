"""A few images of MNIST and CIFAR-10 where published code looks for them: torchvision's layout."""

import pickle
import struct
from pathlib import Path

import numpy as np

import fastdd

_PLACES = {"mnist": "MNIST", "cifar10": "cifar-10-batches-py"}


class Few:
    """Folders of the first images of every class, made when they are asked for.

    Args:
        root: holds ``mnist/`` and ``cifar10/``, as ``fastdd --data-root`` has it.
        out: scratch folder.
        train, test: images a class.
    """

    def __init__(self, root: Path, out: Path, train: int, test: int):
        self.root, self._out, self._train, self._test = root, out, train, test

    def __call__(self, train: int = 0) -> Path:
        """The folder with ``train`` images a class; 0: as many as usual."""
        folder = self._out / f"{train or self._train}-a-class"
        if not folder.exists():
            prepare(self.root, folder, train or self._train, self._test)
        return folder

    @property
    def names(self) -> list[str]:
        """Data sets that were there."""
        return [name for name, place in _PLACES.items() if (self() / place).is_dir()]


def prepare(root: Path, out: Path, train: int, test: int) -> None:
    """Write the first ``train`` and ``test`` images of every class, of the data sets that are there, to ``out``."""
    for name, write in (("mnist", _mnist), ("cifar10", _cifar10)):
        try:
            data = fastdd.data.load(name, root)
        except (FileNotFoundError, OSError):
            continue
        for part, count in ((data.train, train), (data.test, test)):
            rows = first_of_each(part.labels, count)
            write(out, part is data.train, np.asarray(part.images)[rows], np.asarray(part.labels)[rows])


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Rows of the first ``count`` of every class, in their order."""
    labels = np.asarray(labels)
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))


def _mnist(out: Path, train: bool, images: np.ndarray, labels: np.ndarray) -> None:
    folder = out / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    stem = "train" if train else "t10k"
    for kind, array in (("images", images.reshape(-1, 28, 28)), ("labels", labels)):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"{stem}-{kind}-idx{array.ndim}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())


def _cifar10(out: Path, train: bool, images: np.ndarray, labels: np.ndarray) -> None:
    folder = out / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data_batch_{number}" for number in range(1, 6)] if train else ["test_batch"]
    for name, rows in zip(names, np.array_split(np.arange(len(labels)), len(names)), strict=True):
        batch = {"data": images[rows].reshape(len(rows), -1).astype(np.uint8), "labels": labels[rows].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes, "num_vis": 3072}))
