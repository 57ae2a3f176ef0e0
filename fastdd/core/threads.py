"""How OpenMP's threads wait, and how many there are: decided in the environment, before PyTorch loads its runtime."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

# Whoever has set one of these has decided: of the OpenMP standard, GNU's runtime, LLVM's (and Intel's).
_OF_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
# Spins of GNU's runtime and milliseconds of LLVM's, before a thread that waits sleeps. A step of DM+FairDD on c-digits,
# 2 cores, in ms, by spins (none / 1,000 / 20,000 / the runtime's own): alone 47 / 42 / 39 / 38, beside two busy
# processes 160 / 141 / 117 / 182; at a load of 10 none took 300 and the runtime's own 1,500 to 4,400.
_SHORT = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}
_CGROUPS = Path("/sys/fs/cgroup")


def settle() -> None:
    """Let waiting threads sleep soon, and start no more of them than this process may run at once.

    At the end of every parallel loop threads wait for each other. By default they spin, on cores that other processes
    want, while the thread that they wait for is not running: on 2 cores at a load of 10 a step of DM+FairDD took 1.5
    to 4.4 s in place of 0.3. ``OMP_WAIT_POLICY=PASSIVE``, which both runtimes understand, costs a fifth where
    nothing else runs, so each is told a short spin instead. Their numbers follow the processor affinity, but not a
    quota of time (containers): ``OMP_NUM_THREADS`` is set to it where it is smaller.

    Nothing that the environment says already is changed, and nothing once PyTorch is there: its runtime has read it.
    The commands call it first of all; a library must not decide this for its user's process, so the Python interface
    does not.
    """
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in _OF_WAITING):
        os.environ.update(_SHORT)
    may = quota()
    if may is not None and "OMP_NUM_THREADS" not in os.environ and (threads := max(1, math.ceil(may))) < usable():
        os.environ["OMP_NUM_THREADS"] = str(threads)


def usable() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(mounted: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores' worth of time that control groups grant this process (the least on its way up), or None."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    grants = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            grants += _on_the_way(mounted, path, _second)
        elif "cpu" in kinds.split(","):
            for name in ("cpu", "cpu,cpuacct"):
                grants += _on_the_way(mounted / name, path, _first)
    return min(grants, default=None)


def _on_the_way(root: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    folder = root / path.lstrip("/")
    folders = [folder, *folder.parents]
    # A container sees its own group as the root of what is mounted, whatever its path says.
    folders = folders[: folders.index(root) + 1]
    return [grant for one in folders if (grant := read(one)) is not None]


def _second(folder: Path) -> float | None:
    """Of version 2: "max 100000" or "150000 100000"."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _first(folder: Path) -> float | None:
    """Of version 1: a quota of -1 is none."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
