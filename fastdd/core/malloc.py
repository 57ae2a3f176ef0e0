"""glibc's malloc: what it keeps of freed memory, and what it gives back to the kernel."""

import contextlib
import ctypes
import mmap
import sys

# Parameter numbers from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# What a process's own memory may grow by until freed memory is given back, and what it was after that, at first with
# PyTorch's libraries in.
_GROWTH = 512 * 2**20
_after_giving_back = 256 * 2**20

_keeps = False


def keeps_freed_memory() -> bool:
    """Whether :func:`keep_freed_memory` has taken effect in this process."""
    return _keeps


def keep_freed_memory() -> None:
    """Keep freed memory for the next tensor, for the whole process; does nothing where malloc is not glibc's.

    By default glibc maps every block above 32 MB anew and unmaps it when it is freed, and trims the heap, so each
    activation is paid for with page faults: on 2 cores, 100 images of 3x32x32, a training step of ConvNet took 222 ms,
    20 % of it in the kernel; with this, 135 ms (resident memory 0.75 to 0.82 GB). The commands call it at their start;
    a library must not decide this for its user's process, so the Python interface does not.
    """
    global _keeps
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    # 1 stands for success.
    _keeps = mallopt(_M_MMAP_THRESHOLD, 1 << 30) == 1 and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1) == 1


def give_back() -> None:
    """Freed memory back to the kernel, once; does nothing where malloc is not glibc's.

    Until glibc 2.38 at least, aligned blocks (as PyTorch asks for) break the heap up: a freed one is too small for the
    next of its size, and what was cut off beside it keeps it from merging with its neighbours. 200 steps of trajectory
    matching that need 70 MB at a time come to 1.2 GB of resident memory, 1.8 GB where freed memory is kept.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def give_back_growth() -> None:
    """:func:`give_back` where this process's own memory has grown by half a GiB since the last time it did.

    For loops of large temporaries: 200 classes of 64x64, each matched by itself in 60 MB, came to 3.3 GiB in two steps,
    and to 1.1 with this. Small ones never get there, and pay 20 us for the look. Linux only, as the other is.
    """
    global _after_giving_back
    own = _own_bytes()
    if own > _after_giving_back + _GROWTH:
        give_back()
        _after_giving_back = _own_bytes()


def _own_bytes() -> int:
    """Resident memory that is not a file's; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            resident, shared = file.read().split()[1:3]
    except OSError:
        return 0
    return (int(resident) - int(shared)) * mmap.PAGESIZE


def map_every_tensor() -> None:
    """Map every block above 128 KiB by itself, for the whole process: resident memory is then what is in use.

    Several times slower; for measuring.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, 1 << 17)
