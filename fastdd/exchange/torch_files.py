"""Files of ``torch.save``, read without running what they hold, and written so that any torch reads them.

Those in which ``pickle`` itself has put tensors too.
"""

import collections
import io
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdd.core import files
from fastdd.core.files import write_atomic
from fastdd.data.files.readers.pickles import check_places

_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def _numpy_names() -> list:
    """What numpy's scalars and arrays are made with, under the names of old and of new versions (no code runs)."""
    makers = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.empty(0).__reduce__()[0]}
    names = [
        (maker, f"{module}.multiarray.{name}")
        for name, maker in makers.items()
        for module in ("numpy.core", "numpy._core")
    ]
    return [*names, np.ndarray, np.dtype, *{type(np.dtype(name)) for name in _DTYPES}]


def load(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors (on the CPU), numbers, strings, numpy arrays, in lists, tuples and dicts.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: naming it: one that would run code when it is read, which it is not; damaged; or no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_names()):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its parser meets
        text = str(error)
        if code := re.search(r"GLOBAL (?P<name>[\w.]+)", text):
            name = re.sub(r"^(posix|nt)\.", "os.", code["name"])
            raise RuntimeError(f"{path} would run code ({name}): refused") from None
        reason = files.reason(error)[:120]
        raise RuntimeError(f"{path} is no file of torch.save's, or is damaged: {reason}") from None


def _storage(content: bytes) -> torch.storage.TypedStorage:
    """What holds a pickled tensor's values: a file of ``torch.save`` by itself, whose code torch would run."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


_OF_TENSORS = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class _Tensors(pickle.Unpickler):
    """Makes what tensors are made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _OF_TENSORS:
            raise _Code(f"{re.sub('^(posix|nt)$', 'os', module)}.{name}")
        return _OF_TENSORS[module, name]


class _Code(Exception):
    """A pickle names what it would call."""


def load_pickle(path: Path) -> Any:
    """What ``pickle.dump`` wrote: tensors (on the CPU), numbers and strings in lists, tuples and dicts.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: naming it: one that would run code when it is read, which it is not; or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = path.read_bytes()
            check_places(content)
            return _Tensors(io.BytesIO(content)).load()
    except _Code as error:
        raise RuntimeError(f"{path} would run code ({error}): refused") from None
    except Exception as error:  # pickle raises whatever the bytes lead it to
        if code := re.search(r"GLOBAL (?P<name>[\w.]+)", str(error)):
            raise RuntimeError(f"{path} would run code ({code['name']}): refused") from None
        reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise RuntimeError(f"{path} is no pickle of tensors, or is damaged: {reason}") from None


def save(value: Any, path: Path) -> None:
    """Write a file that :func:`load` and ``torch.load(weights_only=True)`` read, atomically.

    Raises:
        OSError: naming it; it is then as it was.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))
