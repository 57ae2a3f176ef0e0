"""Writes that are whole or absent: a reader, or the next start after a kill, never sees half a file."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TextIO

# What a run's folder, and that of experts, keep of KDE reweighting, and of clusters in place of a protected attribute.
WEIGHTS, GROUPS = "weights.safetensors", "groups.npy"


def write_atomic(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write(file)`` on a temporary file beside ``path``, flush it to the disk, and rename it over ``path``.

    Args:
        path: the file to create or replace; its folder must exist.
        write: gets a binary file; what it returns is ignored.

    Raises:
        OSError: naming ``path``, when the disk is full or the folder can't be written. ``path`` is then as it was.
    """
    path = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".partial", delete=False
        ) as file:
            temporary = file.name
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"cannot write {path}: {os.strerror(error.errno or 0)}") from error
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """:func:`write_atomic` of UTF-8 text."""
    write_atomic(path, lambda file: file.write(text.encode()))


def check_writable(path: str | os.PathLike) -> None:
    """OSError unless a file can be written at ``path``: to be told before the work whose result goes there."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file")
    if not path.parent.is_dir():
        raise NotADirectoryError(f"the folder of {path} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"the folder of {path} can't be written")


def hold(folder: str | os.PathLike) -> TextIO | None:
    """Hold a folder for this process: as long as what is returned is open, which it is until it is lost.

    Raises:
        OSError: the folder can't be written, or another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return None
    try:
        lock = open(Path(folder) / ".lock", "w")  # noqa: SIM115  held open for as long as it is wanted
    except OSError as error:
        raise OSError(error.errno, f"cannot write in the folder {folder}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise BlockingIOError(f"another process is running in {folder}") from None
    return lock


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove_partials(folder: str | os.PathLike) -> None:
    """Delete temporary files that a killed process left in ``folder``."""
    for leftover in Path(folder).glob(".*.partial"):
        leftover.unlink(missing_ok=True)
