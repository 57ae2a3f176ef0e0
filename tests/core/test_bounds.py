"""Sizes that files state: nothing takes memory for more than a file can hold."""

import gzip
import io
import zipfile

import numpy as np
import pytest
import yaml

from fastdd.core import bounds


def header(shape: tuple[int, ...], values: bytes = b"\0" * 64) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + values


@pytest.mark.parametrize("shape", [(9999999999999, 128), (17,), (1 << 62, 1 << 62)])
def test_npy_that_asks_for_more_than_it_has(tmp_path, shape):
    path = tmp_path / "x.npy"
    path.write_bytes(header(shape))
    with pytest.raises(RuntimeError, match=r"x.npy is not a .npy file of numbers, or is cut short: .+"):
        bounds.load_npy(path)


@pytest.mark.parametrize("cut", [0, 3, 9, 20, 70, 127])
def test_npy_cut_in_its_header(tmp_path, cut):
    path = tmp_path / "x.npy"
    path.write_bytes(header((16,))[:cut])
    with pytest.raises(RuntimeError, match=r"x.npy is not a .npy file of numbers, or is cut short: .+"):
        bounds.load_npy(path)


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3), np.zeros((0, 4)), np.array(3), np.ones((2, 2)).T])
def test_npy_as_numpy_reads_it(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    read = bounds.load_npy(tmp_path / "x.npy")
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)
    assert type(read) is np.ndarray
    assert read.flags.writeable


def test_npy_of_objects_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(RuntimeError, match=r"is not a .npy file of numbers"):
        bounds.load_npy(tmp_path / "x.npy")


def test_zip_that_unpacks_to_far_more(tmp_path):
    path = tmp_path / "x.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(80):
            member.write(bytes(1 << 20))
    with pytest.raises(RuntimeError, match=r"x.npz would unpack to 83,886,080 bytes or more from"):
        bounds.check_zip(path)


def test_small_files_of_equal_values_are_fine():
    bounds.check_unpacked("x", 1 << 26, len(gzip.compress(bytes(1 << 20))))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [(BOMB, "aliases stand for more than"), ("a: &a [*a]\n", None), ("[" * 5000 + "]" * 5000, "nested too deep")],
)
def test_yaml_without_end(text, message):
    if message is None:
        assert bounds.load_yaml("a: &a [1, 2]\nb: *a\n") == {"a": [1, 2], "b": [1, 2]}
    with pytest.raises(yaml.YAMLError, match=message):
        bounds.load_yaml(text)


def test_yaml_of_settings():
    assert bounds.load_yaml("ipc: 10\nrun: {mean: [0.5, 1]}\n") == {"ipc": 10, "run": {"mean": [0.5, 1]}}
    assert bounds.load_yaml("") is None
