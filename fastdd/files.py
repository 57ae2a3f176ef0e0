"""Writes that are whole or absent: a reader, or the next start after a kill, never sees half a file."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


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


@contextlib.contextmanager
def hold(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a folder for this process while the context lasts, by a lock that ends with the process.

    Raises:
        OSError: the folder can't be written, or another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    with open(Path(folder) / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BlockingIOError(f"another process is writing in {folder}") from None
        yield


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove_partials(folder: str | os.PathLike) -> None:
    """Delete temporary files that a killed process left in ``folder``."""
    for leftover in Path(folder).glob(".*.partial"):
        leftover.unlink(missing_ok=True)
