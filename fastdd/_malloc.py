"""glibc's malloc, told not to return large blocks to the kernel after every use."""

import ctypes
import sys

# Parameter numbers from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

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
