"""Readers of the publishers' own files: IDX (MNIST, Fashion-MNIST), CIFAR-10 (binary, Python, archives), CIFAR-100
(Python, archive), SVHN (cropped digits)."""

import gzip
import hashlib
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_IDX_UBYTE = 0x08
_CIFAR_RECORD = 1 + 3 * 32 * 32
_IDX_FILES = {
    "train_images": ("train-images", 3),
    "train_labels": ("train-labels", 1),
    "test_images": ("t10k-images", 3),
    "test_labels": ("t10k-labels", 1),
}


@dataclass(frozen=True)
class Publisher:
    """Where a data set's files usually lie below a root, and where they are offered."""

    title: str
    page: str
    folders: tuple[str, ...]
    # Images of each class in the publisher's 60,000; MNIST and Fashion-MNIST use the same file names.
    train_counts: tuple[int, ...] | None = None
    # As published: of the gzipped files, and of the archives.
    md5: Mapping[str, str] = field(default_factory=dict)


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
SVHN = Publisher(
    "SVHN",
    "http://ufldl.stanford.edu/housenumbers",
    (".", "svhn", "SVHN"),
    md5={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
)


@dataclass(frozen=True, eq=False)
class Source:
    """Images as published: uint8 [N, C, H, W] and int64 [N] of both splits, and the files they came from."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    files: list[dict]


def describe(name: str, content: bytes, md5: str | None = None) -> dict:
    """Provenance of a file: name, size in bytes, SHA-256; where the publisher's MD5 is known, whether it has it."""
    about = {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if md5 is not None:
        about["as_published"] = hashlib.md5(content, usedforsecurity=False).hexdigest() == md5
    return about


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


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RuntimeError(f"cannot read {path}: {error.strerror}") from None


def _decompress(content: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RuntimeError(f"{name} is truncated or damaged ({error}); get it again") from None


def read_idx(path: Path, md5: Mapping[str, str] | None = None) -> tuple[np.ndarray, dict]:
    """The array in an IDX file, gzipped or not, and the file's provenance (see :func:`parse_idx`).

    ``md5``: published ones by file name, for :func:`describe`.
    """
    content = _read_file(path)
    raw = _decompress(content, str(path)) if path.suffix == ".gz" else content
    known = (md5 or {}).get(path.name.replace(".idx", "-idx"))  # some copies have a dot there
    return parse_idx(raw, str(path)), describe(path.name, content, known)


def no_root(title: str, wanted: str, page: str) -> FileNotFoundError:
    """What is said to who gives no root."""
    return FileNotFoundError(
        f"{title} needs its files: give the folder that holds {wanted} with --data-root (root= in Python); "
        f"they are offered at {page}"
    )


def _require_root(root, publisher: Publisher, files: str) -> Path:
    if root is None:
        raise no_root(publisher.title, files, publisher.page)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"the data root {root} is not a folder")
    return root


def _not_found(publisher: Publisher, files: str, folders: list[Path]) -> FileNotFoundError:
    looked = ", ".join(str(folder) for folder in folders)
    return FileNotFoundError(f"{publisher.title}: {files} not found in {looked}; they are offered at {publisher.page}")


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
    root = _require_root(root, publisher, wanted)
    folders = [root / folder for folder in publisher.folders]
    for folder in folders:
        found = {}
        for key, (stem, rank) in _IDX_FILES.items():
            names = [f"{stem}{dash}idx{rank}-ubyte{suffix}" for suffix in ("", ".gz") for dash in ("-", ".")]
            found[key] = next((folder / name for name in names if (folder / name).is_file()), None)
        if all(found.values()):
            return _mnist_source(found, publisher)
    raise _not_found(publisher, f"{wanted} (unpacked will do)", folders)


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


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return text.encode("latin1")


class _PickledDtype:
    def __init__(self, name, *_):
        self.name = name

    def __setstate__(self, state):
        """Byte order and alignment: nothing that a byte needs."""


class _PickledArray:
    """Takes a pickled array's state and keeps only bytes: numpy itself would trust the shape, type and buffer."""

    pixels: np.ndarray

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _PickledDtype) or dtype.name not in ("u1", b"u1", "uint8", b"uint8"):
            raise pickle.UnpicklingError("its array is not of bytes")
        self.pixels = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


# numpy.core was renamed numpy._core in numpy 2.
_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _latin1,
}


class _BatchUnpickler(pickle.Unpickler):
    """Only what an array of bytes needs, and stand-ins for that: a pickle can otherwise run any code."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR does not need")
        return _STAND_INS[module, name]


def _unpickled(content: bytes, name: str, what: str) -> dict:
    """The fields of a pickled dict; none of something else."""
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise RuntimeError(f"{name} is not a {what}: {str(error) or type(error).__name__}") from None
    if not isinstance(batch, dict):
        return {}
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}


def parse_cifar_python(content: bytes, name: str, kind: str = "CIFAR-10") -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one batch of the Python version of CIFAR-10, unpickled with nothing but arrays allowed.

    Of CIFAR-100, with that as ``kind``, the labels are those of the 100 classes.

    Returns:
        uint8 [n, 3, 32, 32] and int64 [n].

    Raises:
        RuntimeError: naming the file: not such a pickle, or one that asks for anything else.
    """
    fields = _unpickled(content, name, f"{kind} batch")
    data, labels = fields.get("data"), fields.get("labels" if kind == "CIFAR-10" else "fine_labels")
    data = getattr(data, "pixels", None)
    if (
        data is None
        or data.ndim != 2
        or data.shape[1] != _CIFAR_RECORD - 1
        or not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(isinstance(label, int) for label in labels)
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
    root = _require_root(root, CIFAR10, wanted)
    bases = [root / folder for folder in CIFAR10.folders]
    for base in bases:
        for form in _CIFAR_FORMS:
            for folder in (base / form.folder, base):
                if all((folder / name).is_file() for name in form.names):
                    contents = {name: _read_file(folder / name) for name in form.names}
                    files = [describe(name, content) for name, content in contents.items()]
                    return _cifar_source(contents, form, files, folder)
            archive = base / form.archive
            if archive.is_file():
                packed = _read_file(archive)
                contents = _members(packed, archive, form.names)
                described = describe(archive.name, packed, CIFAR10.md5[archive.name])
                return _cifar_source(contents, form, [described], archive)
    raise _not_found(CIFAR10, wanted, bases)


def _members(packed: bytes, archive: Path, names: list[str]) -> dict[str, bytes]:
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if name in names and member.isfile():
                    found[name] = tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RuntimeError(f"{archive} is truncated or damaged ({error}); get it again") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise RuntimeError(f"{archive} lacks {', '.join(missing)}; get it again")
    return {name: found[name] for name in names}


def _cifar_source(contents: dict[str, bytes], form: _CifarForm, files: list[dict], where: Path) -> Source:
    parts = []
    for name, content in contents.items():
        images, labels = form.parse(content, f"{where}/{name}")
        _check_labels(labels, 10, f"{where}/{name}")
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
    root, names = _require_root(root, CIFAR100, wanted), ["train", "test", "meta"]
    bases = [root / folder for folder in CIFAR100.folders]
    for base in bases:
        for folder in (base / "cifar-100-python", base):
            if all((folder / name).is_file() for name in names):
                contents = {name: _read_file(folder / name) for name in names}
                return _cifar100_source(contents, [describe(*item) for item in contents.items()], folder)
        archive = base / "cifar-100-python.tar.gz"
        if archive.is_file():
            packed = _read_file(archive)
            described = describe(archive.name, packed, CIFAR100.md5[archive.name])
            return _cifar100_source(_members(packed, archive, names), [described], archive)
    raise _not_found(CIFAR100, wanted, bases)


def _cifar100_source(contents: dict[str, bytes], files: list[dict], where: Path) -> tuple[Source, tuple[str, ...]]:
    names = _unpickled(contents["meta"], f"{where}/meta", "CIFAR-100 meta").get("fine_label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise RuntimeError(f"{where}/meta has no fine_label_names; get it again")
    arrays = []
    for split in ("train", "test"):
        images, labels = parse_cifar_python(contents[split], f"{where}/{split}", "CIFAR-100")
        _check_labels(labels, len(names), f"{where}/{split}")
        arrays += [images.copy(), labels]
    return Source(*arrays, files), tuple(name if isinstance(name, str) else name.decode("latin1") for name in names)


def _check_labels(labels: np.ndarray, count: int, name: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if len(wrong):
        raise RuntimeError(f"{name}: label {labels[wrong[0]]} of image {wrong[0]} is outside 0..{count - 1}")


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
    root = _require_root(root, SVHN, wanted)
    bases = [root / folder for folder in SVHN.folders]
    for base in bases:
        if all((base / name).is_file() for name in names):
            arrays, files = [], []
            for name in names:
                content = _read_file(base / name)
                arrays += _parse_svhn(content, str(base / name))
                files.append(describe(name, content, SVHN.md5[name]))
            return Source(*arrays, files)
    raise _not_found(SVHN, wanted, bases)


def _parse_svhn(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    try:
        matrices = loadmat(io.BytesIO(content), variable_names=("X", "y"))
    except Exception as error:  # a damaged file can raise nearly anything
        raise RuntimeError(f"{name} is not a MATLAB file: {str(error) or type(error).__name__}") from None
    pixels, labels = matrices.get("X"), matrices.get("y")
    if pixels is None or labels is None or pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, labels.size):
        raise RuntimeError(f"{name} is not SVHN's: it needs X, uint8 [32, 32, 3, n], and n labels y")
    labels = labels.ravel().astype(np.int64)
    _check_labels(labels, 11, name)
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels % 10
