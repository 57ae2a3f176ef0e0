"""Atomic writes: whole or absent."""

import errno
import os
import re
import subprocess
import sys

import pytest
import torch

from fastdd.core import files, space


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


def test_a_failure_without_a_number_says_why(tmp_path):
    def encode(file):
        raise OSError("encoder error -2 when writing image file")

    with pytest.raises(OSError, match=r"cannot write .*a\.png: encoder error -2 when writing image file"):
        files.write_atomic(tmp_path / "a.png", encode)


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


def test_a_leftover_of_a_killed_writer_goes_with_the_next_write(tmp_path):
    for name in (".a.json.x1y2z3.partial", ".b.json.x1y2z3.partial", ".a.json.lock", ".a.json.old.x1y2z3.partial"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".a.json.folder.partial").mkdir()
    files.write_text(tmp_path / "a.json", "whole")
    assert sorted(os.listdir(tmp_path)) == [
        ".a.json.lock",
        ".a.json.old.x1y2z3.partial",
        ".b.json.x1y2z3.partial",
        "a.json",
    ]


def test_a_writer_that_lives_keeps_its_file(tmp_path):
    def write(file):
        file.write(b"first")
        files.write_text(tmp_path / "a", "second, meanwhile")
        files.remove_partials(tmp_path)

    files.write_atomic(tmp_path / "a", write)
    assert (tmp_path / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/target")
    files.check_writable(tmp_path / "link")
    for text in ("new", "newer"):
        files.write_text(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "far" / "target").read_text() == text
    (tmp_path / "link2").symlink_to("nowhere/target")
    with pytest.raises(OSError, match=r"the folder of .*link2 does not exist"):
        files.check_writable(tmp_path / "link2")


def test_a_pipe_and_a_device_are_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.check_writable(tmp_path / "pipe")
    files.write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    assert files.is_stream(tmp_path / "pipe")
    os.close(reader)
    files.write_text(os.devnull, "gone")
    with pytest.raises(OSError, match="cannot write /dev/full: No space left on device"):
        files.write_text("/dev/full", "much")
    receiver, sender = os.pipe()
    files.write_text(f"/dev/fd/{sender}", "by number")
    assert os.read(receiver, 100) == b"by number"
    os.write(sender, b"still open")
    os.close(sender), os.close(receiver)


def test_what_a_link_points_to_is_removed_and_no_device(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("link", "null", "nothing"):
        files.empty_place(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["link", "null"]
    assert os.path.exists(os.devnull)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such step")
def test_two_folders_change_places(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of-{name}").touch()
    assert files.exchange(tmp_path / "a", tmp_path / "b")
    assert (os.listdir(tmp_path / "a"), os.listdir(tmp_path / "b")) == (["of-b"], ["of-a"])
    with pytest.raises(OSError, match=r"cannot put .*nothing in the place of .*a: No such file"):
        files.exchange(tmp_path / "nothing", tmp_path / "a")


def test_a_folder_is_held_as_long_as_who_holds_it_lives(tmp_path):
    assert not files.held(tmp_path)
    assert not files.held(tmp_path / "nothing")
    with files.hold(tmp_path):
        assert files.held(tmp_path)
    assert not files.held(tmp_path)
    with files.partial_folder(tmp_path / "a") as folder:
        assert files.held(folder)


def test_a_temporary_folder_takes_its_place_with_the_rights_of_a_new_one(tmp_path):
    (tmp_path / "new").mkdir()
    with files.partial_folder(tmp_path / "a") as folder:
        (folder / "x").touch()
        files.take_place(folder, tmp_path / "a")
    assert (tmp_path / "a" / "x").exists()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "new").stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["a", "new"]


def test_a_folder_that_is_gone_is_no_file_that_was_not_found(tmp_path):
    with pytest.raises(files.WriteError, match=r"cannot write .*x: its folder is gone") as error:
        files.write_text(tmp_path / "gone" / "x", "y")
    assert not isinstance(error.value, FileNotFoundError)  # which commands take for bad usage
    assert error.value.errno == errno.ENOENT


@pytest.mark.parametrize(
    ("free", "needed", "told"),
    [
        (0, 1, "has 0.0 KiB free; x needs 0.1 KiB: make room"),
        (2**20 - 1, 2**20, "has 0.9 MiB free; x needs 1.0 MiB: make room"),
        (2**20, 2**20 + 1, "has 1.0 MiB free; x needs 1.1 MiB: make room"),
        (3 * 2**30, 10**13, "has 3.0 GiB free; x needs 9,313.3 GiB: make room"),
    ],
)
def test_what_is_free_and_what_is_needed_never_look_alike(tmp_path, monkeypatch, free, needed, told):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free})())
    space.check_room(tmp_path / "not" / "there", free, "x")
    with pytest.raises(space.TooSmallError, match=re.escape(f"{tmp_path} {told}")):
        space.check_room(tmp_path / "not" / "there", needed, "x")


def test_standard_output_in_a_file_goes_on_where_it_is(tmp_path):
    code = (
        "from fastdd.core import files; print('before'); files.write_text('/dev/stdout', 'middle\\n'); print('after')"
    )
    with open(tmp_path / "out.txt", "w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text().split() == ["before", "middle", "after"]


def test_a_full_disk_is_told_as_such_by_what_torch_writes(tmp_path):
    def write(file):
        file._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        torch.save({"weights": torch.zeros(100_000)}, file)

    with pytest.raises(OSError, match=r"cannot write .*state\.pt: No space left on device"):
        files.write_atomic(tmp_path / "state.pt", write)
    assert os.listdir(tmp_path) == []


def test_what_is_read_and_written_anew_is_so_by_one_process_at_a_time(tmp_path):
    (tmp_path / "count").write_text("0")
    code = (
        "import sys, time, pathlib; from fastdd.core import files; p = pathlib.Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    with files.alone_in(p):\n"
        "        n = int((p / 'count').read_text()); time.sleep(1e-3); files.write_text(p / 'count', str(n + 1))\n"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "60"
