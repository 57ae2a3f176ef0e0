"""Space on a disk, asked for before the work whose results go there."""

import errno
import math
import os
import shutil
from contextlib import suppress
from pathlib import Path


class TooSmallError(OSError):
    """The disk is too small, before anything is written."""


def check_room(
    folder: str | os.PathLike, needed: int, what: str, cure: str = "make room, or choose another disk"
) -> None:
    """TooSmallError unless the disk of ``folder``, which may not be there yet, has ``needed`` bytes free.

    ``what`` needs them, in words.
    """
    place = Path(os.path.realpath(folder))
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        unit = next(power for power in (30, 20, 10) if needed >= 1 << power or power == 10)
        # Free space is rounded down and the needed up, so that they never look alike.
        sizes = [rounded(10 * size / 2**unit) / 10 for rounded, size in ((math.floor, free), (math.ceil, needed))]
        name = {30: "GiB", 20: "MiB", 10: "KiB"}[unit]
        raise TooSmallError(
            errno.ENOSPC, f"{place} has {sizes[0]:,} {name} free; {what} needs {sizes[1]:,} {name}: {cure}"
        )


def bytes_in(folder: str | os.PathLike) -> int:
    """What the files of a folder, which may not be there, take."""
    size = 0
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):  # one that went just now
                size += os.stat(os.path.join(folder, name)).st_size
    return size
