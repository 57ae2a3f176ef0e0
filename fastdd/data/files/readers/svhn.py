"""SVHN's cropped digits."""

import io
import math

import numpy as np

from fastdd.core import bounds
from fastdd.data.files.readers.publisher import (
    Publisher,
    Source,
    check_labels,
    describe,
    not_found,
    read_file,
    require_root,
)

SVHN = Publisher(
    "SVHN",
    "http://ufldl.stanford.edu/housenumbers",
    (".", "svhn", "SVHN"),
    md5={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
)


def read_svhn(root) -> Source:
    """SVHN's cropped digits, ``train_32x32.mat`` and ``test_32x32.mat``; the label 10 of zeros becomes 0.

    Args:
        root: the folder of the files, or one that holds them in ``svhn`` or ``SVHN``.

    Raises:
        FileNotFoundError: no root, or files missing: names them, the folders looked in, and where they are offered.
        RuntimeError: a damaged file, or a label outside 1..10.
    """
    names = [*SVHN.md5]
    wanted = " and ".join(names)
    root = require_root(root, SVHN, wanted)
    bases = [root / folder for folder in SVHN.folders]
    for base in bases:
        if all((base / name).is_file() for name in names):
            arrays, files = [], []
            for name in names:
                content = read_file(base / name)
                arrays += _parse_svhn(content, str(base / name))
                files.append(describe(name, content, SVHN.md5[name]))
            return Source(*arrays, files)
    raise not_found(SVHN, wanted, bases)


def _parse_svhn(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat, whosmat

    try:
        listed = whosmat(io.BytesIO(content))
    except Exception as error:  # a damaged file can raise nearly anything
        raise RuntimeError(f"{name} is not a MATLAB file: {str(error) or type(error).__name__}") from None
    # At least a byte a value.
    bounds.check_unpacked(name, sum(math.prod(shape) for _, shape, _ in listed), len(content))
    try:
        matrices = loadmat(io.BytesIO(content), variable_names=("X", "y"))
    except Exception as error:  # a damaged file can raise nearly anything
        raise RuntimeError(f"{name} is not a MATLAB file: {str(error) or type(error).__name__}") from None
    pixels, labels = matrices.get("X"), matrices.get("y")
    if pixels is None or labels is None or pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, labels.size):
        raise RuntimeError(f"{name} is not SVHN's: it needs X, uint8 [32, 32, 3, n], and n labels y")
    labels = labels.ravel().astype(np.int64)
    check_labels(labels, 11, name)
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels % 10
