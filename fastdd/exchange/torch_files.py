"""Files of ``torch.save``, read without running what they hold, and written so that any torch reads them."""

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdd.core.files import write_atomic

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
        if "weights_only" in text:  # a reason, inside advice to run the code
            text = "its pickle is not one of torch.save's"
        reason = (text.splitlines() or [""])[0][:120] or type(error).__name__
        raise RuntimeError(f"{path} is no file of torch.save's, or is damaged: {reason}") from None


def save(value: Any, path: Path) -> None:
    """Write a file that :func:`load` and ``torch.load(weights_only=True)`` read, atomically.

    Raises:
        OSError: naming it; it is then as it was.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))
