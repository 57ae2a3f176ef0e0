"""Small files in the publishers' layouts, so that readers and builders are tested without the real data."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import settings

# A busy machine must not fail a test.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_arrays():
    random = np.random.RandomState(7)
    return {
        "train-images-idx3-ubyte": random.randint(0, 256, (240, 28, 28)).astype(np.uint8),
        "train-labels-idx1-ubyte": (np.arange(240) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": random.randint(0, 256, (110, 28, 28)).astype(np.uint8),
        "t10k-labels-idx1-ubyte": (np.arange(110) % 10).astype(np.uint8),
    }


@pytest.fixture
def mnist_root(tmp_path, mnist_arrays):
    """A root with mnist/ and fashion_mnist/, of gzipped IDX files."""
    for folder in ("mnist", "fashion_mnist"):
        (tmp_path / folder).mkdir()
        for name, array in mnist_arrays.items():
            (tmp_path / folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
    return tmp_path


@pytest.fixture
def cifar_batches():
    random = np.random.RandomState(8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {
        name: (random.randint(0, 256, (20, 3072)).astype(np.uint8), (np.arange(20) % 10).tolist()) for name in names
    }


def cifar_binary(batches) -> dict[str, bytes]:
    return {
        f"{name}.bin": b"".join(bytes([label]) + row.tobytes() for row, label in zip(data, labels, strict=True))
        for name, (data, labels) in batches.items()
    }


def cifar_python(batches) -> dict[str, bytes]:
    # Protocol 2 is what the publisher's Python 2 wrote.
    return {
        name: pickle.dumps({b"batch_label": b"of six", b"data": data, b"labels": labels}, protocol=2)
        for name, (data, labels) in batches.items()
    }


def write_folder(folder, contents):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def write_archive(path, folder, contents):
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def cifar_root(tmp_path, cifar_batches):
    write_folder(tmp_path / "cifar10" / "cifar-10-batches-bin", cifar_binary(cifar_batches))
    return tmp_path


@pytest.fixture
def write_cifar(tmp_path, cifar_batches):
    """Writes the batches in one of the publisher's four forms and returns the root."""

    def write(form: str):
        kind, packed = form.split("-")
        contents = cifar_binary(cifar_batches) if kind == "bin" else cifar_python(cifar_batches)
        if packed == "folder":
            write_folder(tmp_path / f"cifar-10-batches-{kind}", contents)
        else:
            archive = "cifar-10-binary.tar.gz" if kind == "bin" else "cifar-10-python.tar.gz"
            write_archive(tmp_path / archive, f"cifar-10-batches-{kind}", contents)
        return tmp_path

    return write
