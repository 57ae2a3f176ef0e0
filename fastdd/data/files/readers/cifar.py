"""CIFAR-10 (binary, Python, archives) and CIFAR-100 (Python, archive)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastdd.data.files.readers.pickles import unpickled
from fastdd.data.files.readers.publisher import (
    Publisher,
    Source,
    check_labels,
    describe,
    members,
    not_found,
    read_file,
    require_root,
)

CIFAR10 = Publisher(
    "CIFAR-10",
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    (".", "cifar10", "CIFAR10", "cifar-10"),
    md5={
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    },
)
CIFAR100 = Publisher(
    "CIFAR-100",
    CIFAR10.page,
    (".", "cifar100", "CIFAR100", "cifar-100"),
    md5={"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Mean and std that published code normalises it by, and sets made of it.
CIFAR10_NORMALISATION = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CIFAR_RECORD = 1 + 3 * 32 * 32


def parse_cifar_python(content: bytes, name: str, kind: str = "CIFAR-10") -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one batch of the Python version of CIFAR-10, unpickled with nothing but arrays allowed.

    Of CIFAR-100, with that as ``kind``, the labels are those of the 100 classes.

    Returns:
        uint8 [n, 3, 32, 32] and int64 [n].

    Raises:
        RuntimeError: naming the file: not such a pickle, or one that asks for anything else.
    """
    fields = unpickled(content, name, f"{kind} batch")
    data, labels = fields.get("data"), fields.get("labels" if kind == "CIFAR-10" else "fine_labels")
    data = getattr(data, "pixels", None)
    if (
        data is None
        or data.ndim != 2
        or data.shape[1] != _CIFAR_RECORD - 1
        or not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(isinstance(label, int) and 0 <= label < 2**31 for label in labels)
    ):
        raise RuntimeError(f"{name} is not a {kind} batch: it needs data, uint8 [n, 3072], and n labels")
    return data.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def parse_cifar_binary(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one batch of the binary version of CIFAR-10: records of a label and 3,072 pixels.

    Returns:
        uint8 [n, 3, 32, 32] and int64 [n].

    Raises:
        RuntimeError: naming the file, when its size is not a whole number of records.
    """
    if not content or len(content) % _CIFAR_RECORD:
        raise RuntimeError(f"{name} is damaged: {len(content)} bytes are not records of {_CIFAR_RECORD}; get it again")
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


@dataclass(frozen=True)
class _CifarForm:
    folder: str
    archive: str
    suffix: str
    parse: Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]

    @property
    def names(self) -> list[str]:
        return [f"{stem}{self.suffix}" for stem in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")]


_CIFAR_FORMS = (
    _CifarForm("cifar-10-batches-bin", "cifar-10-binary.tar.gz", ".bin", parse_cifar_binary),
    _CifarForm("cifar-10-batches-py", "cifar-10-python.tar.gz", "", parse_cifar_python),
)


def read_cifar10(root) -> Source:
    """CIFAR-10 from the publisher's batches, binary or Python, unpacked or in their ``.tar.gz``.

    Args:
        root: the folder of the batches, or one that holds that folder or the archive, itself or in ``cifar10``.

    Raises:
        FileNotFoundError: no root, or files missing: names them, the folders looked in, and where they are offered.
        RuntimeError: a damaged file or archive, or a label outside 0..9.
    """
    wanted = (
        "cifar-10-batches-bin (data_batch_1.bin to data_batch_5.bin, test_batch.bin) or cifar-10-batches-py "
        "(the same without .bin), or cifar-10-binary.tar.gz or cifar-10-python.tar.gz,"
    )
    root = require_root(root, CIFAR10, wanted)
    bases = [root / folder for folder in CIFAR10.folders]
    for base in bases:
        for form in _CIFAR_FORMS:
            for folder in (base / form.folder, base):
                if all((folder / name).is_file() for name in form.names):
                    contents = {name: read_file(folder / name) for name in form.names}
                    files = [describe(name, content) for name, content in contents.items()]
                    return _cifar_source(contents, form, files, folder)
            archive = base / form.archive
            if archive.is_file():
                packed = read_file(archive)
                contents = members(packed, archive, form.names)
                described = describe(archive.name, packed, CIFAR10.md5[archive.name])
                return _cifar_source(contents, form, [described], archive)
    raise not_found(CIFAR10, wanted, bases)


def _cifar_source(contents: dict[str, bytes], form: _CifarForm, files: list[dict], where: Path) -> Source:
    parts = []
    for name, content in contents.items():
        images, labels = form.parse(content, f"{where}/{name}")
        check_labels(labels, 10, f"{where}/{name}")
        parts.append((images, labels))
    train = parts[:-1]
    return Source(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        parts[-1][0].copy(),
        parts[-1][1],
        files,
    )


def read_cifar100(root) -> tuple[Source, tuple[str, ...]]:
    """CIFAR-100 from the publisher's Python version, unpacked or in its ``.tar.gz``, and the names of its 100 classes.

    Args:
        root: the folder of the batches, or one that holds ``cifar-100-python`` or the archive, itself or in
            ``cifar100``.

    Raises:
        FileNotFoundError, RuntimeError: as :func:`read_cifar10`.
    """
    wanted = "cifar-100-python (train, test, meta) or cifar-100-python.tar.gz"
    root, names = require_root(root, CIFAR100, wanted), ["train", "test", "meta"]
    bases = [root / folder for folder in CIFAR100.folders]
    for base in bases:
        for folder in (base / "cifar-100-python", base):
            if all((folder / name).is_file() for name in names):
                contents = {name: read_file(folder / name) for name in names}
                return _cifar100_source(contents, [describe(*item) for item in contents.items()], folder)
        archive = base / "cifar-100-python.tar.gz"
        if archive.is_file():
            packed = read_file(archive)
            described = describe(archive.name, packed, CIFAR100.md5[archive.name])
            return _cifar100_source(members(packed, archive, names), [described], archive)
    raise not_found(CIFAR100, wanted, bases)


def _cifar100_source(contents: dict[str, bytes], files: list[dict], where: Path) -> tuple[Source, tuple[str, ...]]:
    names = unpickled(contents["meta"], f"{where}/meta", "CIFAR-100 meta").get("fine_label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise RuntimeError(f"{where}/meta has no fine_label_names; get it again")
    arrays = []
    for split in ("train", "test"):
        images, labels = parse_cifar_python(contents[split], f"{where}/{split}", "CIFAR-100")
        check_labels(labels, len(names), f"{where}/{split}")
        arrays += [images.copy(), labels]
    return Source(*arrays, files), tuple(name if isinstance(name, str) else name.decode("latin1") for name in names)
