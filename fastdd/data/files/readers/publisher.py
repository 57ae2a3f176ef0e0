"""Publishers' files: who offers them, what is read from them, and what is said when they are missing or damaged."""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastdd.core import bounds


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


def describe_file(path: Path, name: str) -> dict:
    """:func:`describe` of a large file, a part at a time; RuntimeError names one that can't be read."""
    sha = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while content := file.read(1 << 20):
                sha.update(content)
            return {"file": name, "bytes": file.tell(), "sha256": sha.hexdigest()}
    except OSError as error:
        raise RuntimeError(f"cannot read {path}: {error.strerror}") from None


def read_file(path: Path) -> bytes:
    """A file's content; RuntimeError names one that can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RuntimeError(f"cannot read {path}: {error.strerror}") from None


def decompress(content: bytes, name: str) -> bytes:
    """Of a gzipped file; RuntimeError names one that is damaged, or would unpack to far more than it is."""
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(bounds.most_bytes(len(content)) + 1)
        bounds.check_unpacked(name, len(unpacked), len(content))
        return unpacked
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RuntimeError(f"{name} is truncated or damaged ({error}); get it again") from None


def members(packed: bytes, archive: Path, names: list[str]) -> dict[str, bytes]:
    """The contents of files of a ``.tar.gz``, by name, in the order asked for; RuntimeError names what is missing."""
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if name in names and member.isfile():
                    bounds.check_unpacked(f"{archive}: {name}", member.size, len(packed))
                    contents[name] = tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RuntimeError(f"{archive} is truncated or damaged ({error}); get it again") from None
    missing = [name for name in names if name not in contents]
    if missing:
        raise RuntimeError(f"{archive} lacks {', '.join(missing)}; get it again")
    return {name: contents[name] for name in names}


def no_root(title: str, wanted: str, page: str) -> FileNotFoundError:
    """What is said to who gives no root."""
    return FileNotFoundError(
        f"{title} needs its files: give the folder that holds {wanted} with --data-root (root= in Python); "
        f"they are offered at {page}"
    )


def require_root(root, publisher: Publisher, files: str) -> Path:
    """The root as a path; FileNotFoundError says what is to be given if it is None or no folder."""
    if root is None:
        raise no_root(publisher.title, files, publisher.page)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"the data root {root} is not a folder")
    return root


def not_found(publisher: Publisher, files: str, folders: list[Path]) -> FileNotFoundError:
    """What is said where the files are in none of the folders."""
    looked = ", ".join(str(folder) for folder in folders)
    return FileNotFoundError(f"{publisher.title}: {files} not found in {looked}; they are offered at {publisher.page}")


def check_labels(labels: np.ndarray, count: int, name: str) -> None:
    """RuntimeError, naming the file, unless all labels are within 0..count - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if len(wrong):
        raise RuntimeError(f"{name}: label {labels[wrong[0]]} of image {wrong[0]} is outside 0..{count - 1}")
