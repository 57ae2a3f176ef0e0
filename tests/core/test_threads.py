"""How OpenMP's threads wait, and how many there are."""

import os
import subprocess
import sys

import pytest

from fastdd.core import threads


def lay(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def of_version_1(group, quota):
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/not/mounted/here\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("4:memory:/x\n1:cpu,cpuacct:/x\n", of_version_1("cpu,cpuacct/x", 300000), 3.0),
        ("1:cpu:/\n", of_version_1("cpu", -1), None),
        ("1:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
    ],
)  # fmt: skip
def test_the_quota_is_the_least_on_the_way_up(tmp_path, membership, files, cores):
    lay(tmp_path / "mounted", files)
    (tmp_path / "cgroup").write_text(membership)
    assert threads.quota(tmp_path / "mounted", tmp_path / "cgroup") == cores


def test_no_control_groups_no_quota(tmp_path):
    assert threads.quota(tmp_path, tmp_path / "not-there") is None


@pytest.fixture
def early(monkeypatch):
    """A process in which PyTorch is not there yet, and whose environment says nothing."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def test_threads_sleep_soon_unless_the_environment_says_otherwise(early):
    threads.settle()
    assert (os.environ["GOMP_SPINCOUNT"], os.environ["KMP_BLOCKTIME"]) == ("20000", "1")


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_is_said_already_stays(early, name):
    early.setenv(name, "ACTIVE" if name == "OMP_WAIT_POLICY" else "30000")
    threads.settle()
    assert os.environ.get("GOMP_SPINCOUNT") == ("30000" if name == "GOMP_SPINCOUNT" else None)


@pytest.mark.parametrize(
    ("granted", "said", "threads_"),
    [(1.5, None, "2"), (0.2, None, "1"), (64.0, None, None), (1.5, "4", "4")],
)
def test_a_quota_bounds_the_threads(early, granted, said, threads_):
    early.setattr(threads, "quota", lambda: granted)
    early.setattr(threads, "usable", lambda: 8)
    if said is not None:
        early.setenv("OMP_NUM_THREADS", said)
    threads.settle()
    assert os.environ.get("OMP_NUM_THREADS") == threads_


def test_nothing_is_changed_once_pytorch_is_there(early):
    early.setitem(sys.modules, "torch", object())
    threads.settle()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_commands_settle_it_before_pytorch_reads_it():
    script = (
        "import os, sys, fastdd.cli\n"
        "sys.argv = ['fastdd', '--version']\n"
        "try:\n    fastdd.cli.main()\n"
        "except SystemExit:\n    print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["20000", "False"]
