"""Writes that are whole or absent: a reader, or the next start after a kill, never sees half a file."""

import csv
import ctypes
import errno
import io
import os
import re
import shutil
import stat
import sys
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from fastdd.core.space import check_room

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

# What a run's folder, and that of experts, keep of KDE reweighting, and of clusters in place of a protected attribute.
WEIGHTS, GROUPS = "weights.safetensors", "groups.npy"
# What a run's folder keeps of a stored set that it started from.
INITIAL = "initial.safetensors"
# Of a folder that one process holds.
LOCK = ".lock"

STDOUT = Path("/dev/stdout")
# What the parsers of numpy, zip, csv and JSON raise at a file that is damaged, or was made to harm.
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError),
    *(MemoryError, SyntaxError, NotImplementedError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, csv.Error),
)
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
# A temporary file or folder is named ".NAME.RANDOM.partial".
_PARTIAL = ".partial"
# Of Linux's renameat2(2): paths are relative to the working folder, and change places.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# Of a disk that is as good as full: no result fits.
_LEAST_FREE = 1 << 16


class WriteError(OSError):
    """A file can't be written. Not a FileNotFoundError where its folder is gone: that is said of what is read."""


def write_atomic(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write(file)`` on a temporary file beside ``path``, flush it to the disk, and rename it over ``path``.

    A link stays, and what it points to is replaced; standard output, a pipe or a device is written to. What killed
    writers of the same file left is removed.

    Args:
        path: the file to create or replace; its folder must exist.
        write: gets a binary file; what it returns is ignored.

    Raises:
        WriteError: naming ``path``, when the disk is full or the folder can't be written, or is gone. ``path`` is then
            as it was.
    """
    path = Path(path)
    try:
        if is_stream(path):
            content = io.BytesIO()
            write(content)
            _pour(path, content.getbuffer())
        else:
            _replace(Path(os.path.realpath(path)), write)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: str | os.PathLike, error: OSError) -> WriteError:
    """What to raise where ``path`` can't be written."""
    gone = error.errno == errno.ENOENT and not os.path.isdir(os.path.dirname(os.path.realpath(path)))
    why = "its folder is gone" if gone else reason(error) if error.errno is None else os.strerror(error.errno)
    return WriteError(error.errno, f"cannot write {path}: {why}")


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    remove_partials(path.parent, of=path.name)
    file = _temporary(path)
    try:
        with file:
            _Told(file).take(write)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
            if fcntl is None:
                file.close()  # other systems rename no open file
            os.replace(file.name, path)  # while it is held: a file that no one holds is taken for a leftover
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


class _Told:
    """A file that keeps why a write failed: torch.save tells it as "enforce fail at inline_container.cc"."""

    def __init__(self, file: BinaryIO):
        self._file, self._error = file, None

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self._error = error
            raise

    def take(self, write: Callable[[BinaryIO], object]) -> None:
        try:
            write(self)
        except RuntimeError as error:
            raise (self._error or error) from None


def _temporary(path: Path) -> BinaryIO:
    """An open file beside ``path`` that :func:`remove_partials` leaves alone as long as it is open."""
    while True:
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115  the caller closes it
            dir=path.parent, prefix=f".{path.name}.", suffix=_PARTIAL, delete=False
        )
        if _claim(file.fileno(), file.name):
            return file
        file.close()


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``, removed at the end; what killed writers of ``path`` left is removed."""
    remove_partials(path.parent, of=path.name)
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PARTIAL))
        claimed = os.open(folder, os.O_RDONLY) if fcntl else None
        if claimed is None or _claim(claimed, folder):
            break
        os.close(claimed)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if claimed is not None:
            os.close(claimed)


def take_place(folder: Path, path: Path) -> None:
    """Make the temporary ``folder`` what ``path`` is, which must be an empty folder or nothing."""
    os.chmod(folder, 0o777 & ~_umask())
    if path.exists():
        path.rmdir()
    os.rename(folder, path)


def _claim(descriptor: int, path: str | os.PathLike) -> bool:
    """Lock a temporary file as that of a living writer; False where it was taken for a leftover before that."""
    if fcntl is None:
        return True
    with suppress(OSError):  # a file system without locks, on which no leftover is removed either
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def held(folder: str | os.PathLike) -> bool:
    """Whether a living process works in a temporary folder, or holds a folder (:func:`hold`)."""
    if fcntl is None:
        return False
    for path in (Path(folder), Path(folder, LOCK)):
        with suppress(OSError):  # not there, or a file system without locks
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
    return False


def is_partial(name: str) -> bool:
    """Whether a file's name is that of a temporary file of ours."""
    return name.startswith(".") and name.endswith(_PARTIAL)


_NO_PICKLE = "its pickle is not one of torch.save's"


def reason(error: BaseException) -> str:
    """What an error says, without its number and in a line; its type where it says nothing.

    >>> reason(OSError(28, "No space left on device")), reason(KeyError("images")), reason(ValueError())
    ('No space left on device', "it has no 'images'", 'ValueError')
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, KeyError) and error.args:
        # torch.load looks up instructions of pickles, which are numbers.
        return _NO_PICKLE if isinstance(error.args[0], int) else f"it has no {error}"
    if "weights_only" in text:  # torch.load's text is advice to run the code
        code = re.search(r"GLOBAL (?P<name>[\w.]+)", text)
        return f"it would run code ({code['name']})" if code else _NO_PICKLE
    return " ".join(text.split())


def entries(folder: str | os.PathLike, known: Collection[str] = ()) -> list[str]:
    """Names in a folder that are not ``known``, sorted; not temporary files, all that a killed process may leave."""
    return sorted(name for name in os.listdir(folder) if name not in known and not is_partial(name))


def remove_partials(folder: str | os.PathLike, of: str | None = None) -> None:
    """Delete temporary files and folders that killed processes left in ``folder``: all, or those of the file ``of``."""
    if fcntl is None:
        return
    pattern = r"\..*" if of is None else rf"\.{re.escape(of)}\.[^.]+"
    try:
        names = [name for name in os.listdir(folder) if re.fullmatch(pattern + re.escape(_PARTIAL), name, re.DOTALL)]
    except OSError:  # the write that follows says why
        return
    for leftover in (Path(folder, name) for name in names):
        with suppress(OSError):  # held by a writer that lives, or removed by another one
            descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink()
            finally:
                os.close(descriptor)


def empty_place(path: str | os.PathLike) -> None:
    """Remove the file at ``path``; a link stays, and what it points to goes. Pipes and devices stay too."""
    target = Path(os.path.realpath(path))
    if target.is_file():
        target.unlink(missing_ok=True)


def is_stream(path: str | os.PathLike) -> bool:
    """Whether ``path`` is standard output, a pipe or a device: it is written to, not replaced."""
    if _open_descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_stdout(path: str | os.PathLike) -> bool:
    """Whether ``path`` leads to this process's standard output."""
    return _open_descriptor(path) == 1


def _open_descriptor(path: str | os.PathLike) -> int | None:
    """The open file of this process that ``path`` leads to, as ``/dev/stdout`` does, if any.

    Its number is what counts: where standard output goes to a file, opening that again would begin at its start.
    """
    place = os.path.abspath(path)
    for _ in range(40):  # as many links as Linux follows
        if place in _STREAMS:
            return _STREAMS[place]
        folder, name = os.path.split(place)
        if folder in ("/dev/fd", "/proc/self/fd", f"/proc/{os.getpid()}/fd") and name.isdecimal():
            return int(name)
        if not os.path.islink(place):
            return None
        place = os.path.normpath(os.path.join(folder, os.readlink(place)))
    return None


def _pour(path: Path, content: memoryview) -> None:
    descriptor = _open_descriptor(path)
    if descriptor == 1:
        sys.stdout.flush()
        if hasattr(sys.stdout, "buffer"):
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
            return
    with open(path if descriptor is None else os.dup(descriptor), "wb") as file:
        file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """:func:`write_atomic` of UTF-8 text."""
    write_atomic(path, lambda file: file.write(text.encode()))


def check_writable(path: str | os.PathLike, size: int = _LEAST_FREE) -> None:
    """OSError unless a file of ``size`` bytes can be written at ``path``: told before the work whose result goes there.

    That holds as far as it can be known: quotas are not looked at, and other processes fill the disk too.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file")
    if is_stream(path):
        if _open_descriptor(path) is None and not os.access(path, os.W_OK):
            raise PermissionError(f"{path} can't be written")
        return
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise NotADirectoryError(f"the folder of {path} does not exist")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder of {path} can't be written")
    check_room(folder, size, path.name)


def exchange(one: str | os.PathLike, other: str | os.PathLike) -> bool:
    """Let two paths change places, in one step that no kill can divide; False where the system has none (not Linux)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    paths = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # an old kernel, or a file system without it
        return False
    raise OSError(number, f"cannot put {one} in the place of {other}: {os.strerror(number)}")


@contextmanager
def alone_in(folder: str | os.PathLike) -> Iterator[None]:
    """For reading a file of ``folder`` and writing it anew: waits until no other process does that there.

    It is another lock than that of :func:`hold`, which a run keeps for hours.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY) if fcntl else None
    except OSError as error:
        raise WriteError(error.errno, f"cannot write in the folder {folder}: {error.strerror}") from error
    try:
        if descriptor is not None:
            with suppress(OSError):  # a file system without locks of folders
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def check_regular(folder: str | os.PathLike) -> None:
    """OSError if something in a folder is a pipe or a device, at which reads and writes may wait for ever."""
    for name in sorted(os.listdir(folder)):
        path = Path(folder, name)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(f"{path} is a pipe or a device: take it out of the folder")


def hold(folder: str | os.PathLike) -> TextIO | None:
    """Hold a folder for this process: as long as what is returned is open, which it is until it is lost.

    Raises:
        OSError: the folder can't be written, or another process holds it.
    """
    if fcntl is None:
        return None
    try:
        check_regular(folder)
        lock = open(Path(folder) / LOCK, "w")  # noqa: SIM115  held open for as long as it is wanted
    except OSError as error:
        if error.errno is None:
            raise
        raise WriteError(error.errno, f"cannot write in the folder {folder}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise BlockingIOError(f"another process is running in {folder}") from None
    return lock


def is_held(folder: str | os.PathLike) -> bool:
    """Whether a process holds a folder (:func:`hold`). Nothing is made or kept; False where the system has no locks."""
    path = Path(folder) / LOCK
    if fcntl is None or not path.is_file():
        return False
    try:
        with open(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:  # others are of someone else's, or a file system without locks
        return isinstance(error, BlockingIOError)
    return False


def check_folder(folder: str | os.PathLike, what: str = "folder") -> None:
    """WriteError unless a folder, which need not be there yet, can be written in. Nothing is made."""
    folder = Path(os.path.realpath(folder))
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir():
        raise WriteError(errno.ENOTDIR, f"cannot create the {what} {folder}: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise WriteError(errno.EACCES, f"cannot write in the {what} {place}: {os.strerror(errno.EACCES)}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
