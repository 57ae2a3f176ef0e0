"""Which tests are collected here, and fixtures shared by all."""

import gc
import gzip
import io
import os
import pickle
import struct
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from fastdd.core import malloc, plugins

# A busy machine must not fail a test.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
# Nor add lines of progress to what a command says.
os.environ["FASTDD_PROGRESS_SECONDS"] = "0"


def pytest_configure(config):
    # As the commands do: page faults of large temporaries, mapped and unmapped each time, were a seventh of the suite.
    malloc.keep_freed_memory()
    # Benchmarks are timed when that is asked for; as a part of the suite, each is called once.
    if config.pluginmanager.hasplugin("benchmark") and not (
        config.option.benchmark_only or config.option.benchmark_enable
    ):
        config.option.benchmark_disable = True


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Half a million objects are made that stay: to look through them for garbage was a quarter of the time, in every
    process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def _named_folder(variable: str) -> bool:
    """Whether an environment variable names a folder."""
    return bool(os.environ.get(variable)) and Path(os.environ[variable]).is_dir()


# Marker -> whether what its tests need is here, and what to say where it is not.
_NEEDS = {
    "gpu": (torch.cuda.is_available, "there is no NVIDIA GPU"),
    "realdata": (lambda: _named_folder("FASTDD_TEST_DATA"), "FASTDD_TEST_DATA names no folder"),
    "upstream": (lambda: _named_folder("FASTDD_UPSTREAM"), "FASTDD_UPSTREAM names no folder"),
}
_left_out = Counter()


def pytest_itemcollected(item):
    if "public_checkout" in getattr(item, "fixturenames", ()):
        item.add_marker("upstream")


def pytest_collection_modifyitems(config, items):
    """Leave out what needs something that is not here: a skip then says something, and is worth a look."""
    absent = [marker for marker, (here, _) in _NEEDS.items() if not here()]
    left_out = []
    for item in items:
        missing = next((marker for marker in absent if item.get_closest_marker(marker)), None)
        if missing:
            left_out.append(item)
            _left_out[missing] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    # What takes longest where nothing is kept begins first, in one process, while the other goes on with the rest.
    items.sort(key=lambda item: item.get_closest_marker("kernels") is None)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["left_out"] = dict(_left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    # Every process has collected the same tests.
    for marker, number in getattr(node, "workeroutput", {}).get("left_out", {}).items():
        _left_out[marker] = number


def pytest_terminal_summary(terminalreporter):
    for marker, number in _left_out.items():
        terminalreporter.write_line(f"left out: {number} tests marked {marker} ({_NEEDS[marker][1]})")


# Entries that tell the public checkouts apart.
_CHECKOUTS = {
    "dc": ("CL_DM.py", "main_DM.py", "main.py"),
    "fairdd": ("main_DM.py", "main_DC.py", "data_handler"),
    "mtt": ("buffer.py", "networks.py", "docs"),
    "tesla": ("buffer.py", "indices"),
    "idc": ("condense_mp.py", "misc"),
    "dcbench": ("evaluator_main.py", "data_loader"),
    "cafe": ("distill.py", "figs"),
    "datadam": ("main_DataDAM.py",),
    "idm": ("IDM_cifar10.py", "dc_utils.py"),
}


@pytest.fixture
def public_checkout():
    """``public_checkout(family)``: the folder of published code, below $FASTDD_UPSTREAM or that itself; or a skip."""

    def find(family: str) -> Path:
        given = os.environ.get("FASTDD_UPSTREAM")
        if not given:
            pytest.skip("set FASTDD_UPSTREAM to a folder with public checkouts")
        for folder in (Path(given), *sorted(Path(given).iterdir())):
            if all((folder / entry).exists() for entry in _CHECKOUTS[family]):
                return folder
        pytest.skip(f"no checkout of {family} under {given}")

    return find


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with mnist/, fashion_mnist/, cifar10/, tiny_imagenet_20/, imagenette_small/."""
    return Path(os.environ["FASTDD_TEST_DATA"])


# Small files in the publishers' layouts, so that readers and builders are tested without the real data.


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


@pytest.fixture
def parts_apart(monkeypatch, tmp_path_factory):
    """What a test registers is gone after it, and files that it names are not remembered on this account."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.delenv(plugins.ENVIRONMENT, raising=False)
    yield
    plugins._forget(lambda _: True)
    plugins._loaded.clear()
    plugins._recorded.clear()
