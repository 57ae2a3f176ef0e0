"""Atomic writes: whole or absent."""

import errno
import os

import pytest

from fastdd.core import files


def test_replaces_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "a.json"
    files.write_text(target, "one")
    files.write_text(target, "two")
    assert target.read_text() == "two"
    assert os.listdir(tmp_path) == ["a.json"]


def test_failure_keeps_the_old_file(tmp_path):
    target = tmp_path / "a.bin"
    files.write_text(target, "old")

    def half(file):
        file.write(b"new but")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write .*a\.bin: No space left on device"):
        files.write_atomic(target, half)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*nowhere"):
        files.write_text(tmp_path / "nowhere" / "x", "y")


def test_remove_partials(tmp_path):
    (tmp_path / ".checkpoint.pt.abc.partial").write_text("half")
    (tmp_path / "keep.txt").write_text("whole")
    files.remove_partials(tmp_path)
    assert os.listdir(tmp_path) == ["keep.txt"]


def test_check_writable(tmp_path):
    files.check_writable(tmp_path / "new.json")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="is a folder, not a file"):
        files.check_writable(tmp_path)
    with pytest.raises(OSError, match="does not exist"):
        files.check_writable(tmp_path / "nowhere" / "x.json")
