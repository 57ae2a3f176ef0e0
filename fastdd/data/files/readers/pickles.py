"""Pickles of CIFAR's Python version, and of lists and arrays of one dimension, read without running what they hold."""

import io
import pickle
import pickletools
import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from fastdd.core.files import reason


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return text.encode("latin1")


class _PickledDtype:
    def __init__(self, name, *_):
        self.name = name

    def __setstate__(self, state):
        """Byte order and alignment: nothing that a byte needs."""


class _PickledArray:
    """Takes a pickled array's state and keeps only bytes: numpy itself would trust the shape, type and buffer."""

    pixels: np.ndarray

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _PickledDtype) or dtype.name not in ("u1", b"u1", "uint8", b"uint8"):
            raise pickle.UnpicklingError("its array is not of bytes")
        self.pixels = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


# numpy.core was renamed numpy._core in numpy 2.
_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _latin1,
}


class _BatchUnpickler(pickle.Unpickler):
    """Only what an array of bytes needs, and stand-ins for that: a pickle can otherwise run any code."""

    stand_ins: Mapping = MappingProxyType(_STAND_INS)

    def find_class(self, module: str, name: str):
        if (module, name) not in self.stand_ins:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which it does not need")
        return self.stand_ins[module, name]


class _LittleEndian(_PickledDtype):
    def __setstate__(self, state):
        """Numbers and text have a byte order."""
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError("its numbers are in another byte order")


def _values(dtype: _PickledDtype, data: bytes) -> np.ndarray:
    if not isinstance(dtype, _LittleEndian) or not re.fullmatch(r"i8|f8|U[1-9]\d{0,3}", str(dtype.name)):
        raise pickle.UnpicklingError("it has an array of another kind than numbers of 64 bits and text")
    return np.frombuffer(data, f"<{dtype.name}")


class _PickledList:
    """Takes the state of an array in one dimension and keeps its values."""

    values = np.zeros(0)

    def __setstate__(self, state):
        _, shape, dtype, _, data = state
        self.values = _values(dtype, data)
        if shape != self.values.shape:
            raise pickle.UnpicklingError("an array has other values than its shape says, or several dimensions")


class _ListUnpickler(_BatchUnpickler):
    stand_ins = MappingProxyType(
        {
            **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _PickledList() for core in ("core", "_core")},
            **{
                (f"numpy.{core}.multiarray", "scalar"): lambda dtype, data: _values(dtype, data)[0].item()
                for core in ("core", "_core")
            },
            ("numpy", "ndarray"): _PickledList,
            ("numpy", "dtype"): _LittleEndian,
        }
    )


def unpickled_lists(content: bytes, name: str, what: str) -> dict[str, list]:
    """The fields of a pickled dict that are lists, or arrays of 64-bit numbers or text, as lists.

    Args:
        content: of the file.
        name: of the file, for messages.
        what: it should be.

    Raises:
        RuntimeError: it is damaged, or asks for anything else.
    """
    fields = {}
    for field, value in unpickled(content, name, what, _ListUnpickler).items():
        if isinstance(value, _PickledList):
            fields[field] = value.values.tolist()
        elif isinstance(value, list):
            fields[field] = value
    return fields


def check_places(content: bytes) -> None:
    """UnpicklingError where a pickle numbers its objects beyond its bytes: Python takes memory for all up to them."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("LONG_BINPUT", "PUT") and argument > len(content):
            raise pickle.UnpicklingError(f"it numbers an object {argument:,}, and has {len(content):,} bytes")


def unpickled(content: bytes, name: str, what: str, unpickler: type[_BatchUnpickler] = _BatchUnpickler) -> dict:
    """The fields of a pickled dict; none of something else."""
    try:
        check_places(content)
        batch = unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise RuntimeError(f"{name} is not a {what}: {reason(error)}") from None
    if not isinstance(batch, dict):
        return {}
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
