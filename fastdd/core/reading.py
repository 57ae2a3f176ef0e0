"""Files that may be damaged, or made to harm, read whole: what is wrong is told in one line that names the file."""

import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from fastdd.core.files import DAMAGE, reason
from fastdd.core.text import shown


def content(path: str | os.PathLike) -> bytes:
    """A regular file's content.

    Raises:
        OSError: it can't be read, or is a pipe or a device, which may never end.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "not a regular file but a pipe or device", str(path))
    return path.read_bytes()


def text(path: str | os.PathLike) -> str:
    """A regular file's content as UTF-8 text; OSError as of :func:`content`, ValueError where it is none."""
    try:
        return content(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None


def parse_json(written: str | bytes) -> Any:
    """What JSON text says; ValueError where it is none, nested too deep, or has numbers that are not finite."""
    try:
        return json.loads(written, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON; null stands for it")


def _finite(figures: str) -> float:
    value = float(figures)
    if not math.isfinite(value):
        _refuse(shown(figures))
    return value


@contextmanager
def damage_of(
    path: str | os.PathLike, says: str = "is damaged", kind: type[Exception] = RuntimeError
) -> Iterator[None]:
    """Within the block, what parsers and checks raise at ``path`` becomes an error of ``kind``, unless it names it."""
    try:
        yield
    except (*DAMAGE, RuntimeError) as error:
        if str(path) in str(error):
            raise
        cause = f"it has no {error}" if isinstance(error, KeyError) else reason(error)
        raise kind(f"{path} {says}: {cause}") from None


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 on."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return type(value) in (int, float) and abs(value) < math.inf
