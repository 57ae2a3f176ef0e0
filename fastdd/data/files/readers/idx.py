"""IDX files, and the four of them that are MNIST or Fashion-MNIST."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastdd.data.files.readers.publisher import (
    Publisher,
    Source,
    decompress,
    describe,
    not_found,
    read_file,
    require_root,
)

_IDX_UBYTE = 0x08
_IDX_FILES = {
    "train_images": ("train-images", 3),
    "train_labels": ("train-labels", 1),
    "test_images": ("t10k-images", 3),
    "test_labels": ("t10k-labels", 1),
}
MNIST = Publisher(
    "MNIST",
    "http://yann.lecun.com/exdb/mnist",
    ("mnist", "MNIST", "mnist/raw", "MNIST/raw", ".", "raw"),
    (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
FASHION_MNIST = Publisher(
    "Fashion-MNIST",
    "https://github.com/zalandoresearch/fashion-mnist",
    (
        *("fashion_mnist", "fashion-mnist", "FashionMNIST", "fashion_mnist/raw", "fashion-mnist/raw"),
        *("FashionMNIST/raw", ".", "raw"),
    ),
    (6000,) * 10,
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The uint8 array in an IDX file's (uncompressed) content.

    Format: two zero bytes, the type code 8 (unsigned byte), the number of dimensions, each dimension as a big-endian
    32-bit integer, then the values (http://yann.lecun.com/exdb/mnist, "the IDX file format").

    Raises:
        RuntimeError: naming the file: another magic number, or more or fewer bytes than the header says.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "two.idx")
    array([7, 9], dtype=uint8)
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UBYTE:
        raise RuntimeError(f"{name} is not an IDX file of unsigned bytes: its magic number is 0x{content[:4].hex()}")
    dimensions = content[3]
    if dimensions == 0:
        raise RuntimeError(f"{name} is not an IDX file of an array: it has no dimensions")
    start = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:start], ">u4").astype(int).tolist() if len(content) >= start else None
    if shape is None or len(content) - start != math.prod(shape):
        expected = f"{start + math.prod(shape)}" if shape is not None else f"at least {start}"
        raise RuntimeError(f"{name} is damaged: {len(content)} bytes, its header asks for {expected}; get it again")
    # A copy: torch warns about arrays over bytes, which can't be written.
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def read_idx(path: Path, md5: Mapping[str, str] | None = None) -> tuple[np.ndarray, dict]:
    """The array in an IDX file, gzipped or not, and the file's provenance (see :func:`parse_idx`).

    ``md5``: published ones by file name, for :func:`describe`.
    """
    content = read_file(path)
    raw = decompress(content, str(path)) if path.suffix == ".gz" else content
    known = (md5 or {}).get(path.name.replace(".idx", "-idx"))  # some copies have a dot there
    return parse_idx(raw, str(path)), describe(path.name, content, known)


def read_mnist_files(root, publisher: Publisher) -> Source:
    """MNIST or Fashion-MNIST from the publisher's four IDX files, gzipped or not.

    Args:
        root: folder of the files, or one that holds them in a usual subfolder (``mnist``, ``MNIST/raw``, ...).
        publisher: :data:`MNIST` or :data:`FASHION_MNIST`.

    Raises:
        FileNotFoundError: no root, or files missing: names them, the folders looked in, and where they are offered.
        RuntimeError: a damaged file, splits that don't fit together, or the other data set's files.
    """
    wanted = ", ".join(f"{stem}-idx{rank}-ubyte.gz" for stem, rank in _IDX_FILES.values())
    root = require_root(root, publisher, wanted)
    folders = [root / folder for folder in publisher.folders]
    for folder in folders:
        paths = {}
        for key, (stem, rank) in _IDX_FILES.items():
            names = [f"{stem}{dash}idx{rank}-ubyte{suffix}" for suffix in ("", ".gz") for dash in ("-", ".")]
            paths[key] = next((folder / name for name in names if (folder / name).is_file()), None)
        if all(paths.values()):
            return _mnist_source(paths, publisher)
    raise not_found(publisher, f"{wanted} (unpacked will do)", folders)


def _mnist_source(paths: dict[str, Path], publisher: Publisher) -> Source:
    arrays, files = {}, []
    for key, path in paths.items():
        arrays[key], provenance = read_idx(path, publisher.md5)
        files.append(provenance)
        shape = arrays[key].shape
        expected = (len(arrays[key]), 28, 28) if key.endswith("images") else (len(arrays[key]),)
        if shape != expected:
            raise RuntimeError(f"{path} is not {publisher.title}'s: its shape is {list(shape)}, not {list(expected)}")
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if len(images) != len(labels):
            raise RuntimeError(
                f"{paths[f'{split}_images']} has {len(images)} images, "
                f"but {paths[f'{split}_labels']} has {len(labels)} labels"
            )
        wrong = np.flatnonzero(labels > 9)
        if len(wrong):
            raise RuntimeError(
                f"{paths[f'{split}_labels']}: label {labels[wrong[0]]} at row {wrong[0]} is outside 0..9"
            )
    counts = tuple(np.bincount(arrays["train_labels"], minlength=10).tolist())
    if len(arrays["train_labels"]) == 60000 and counts != publisher.train_counts:
        raise RuntimeError(
            f"{paths['train_labels']} is not {publisher.title}'s: images per class are {counts}, "
            f"published {publisher.train_counts}; is it another data set with the same file names?"
        )
    return Source(
        arrays["train_images"][:, None],
        arrays["train_labels"].astype(np.int64),
        arrays["test_images"][:, None],
        arrays["test_labels"].astype(np.int64),
        files,
    )


def read_mnist(root) -> Source:
    """MNIST (:func:`read_mnist_files`)."""
    return read_mnist_files(root, MNIST)


def read_fashion_mnist(root) -> Source:
    """Fashion-MNIST (:func:`read_mnist_files`)."""
    return read_mnist_files(root, FASHION_MNIST)
