"""Pickles of CIFAR's Python version, read without running what they ask for."""

import io
import pickle
import pickletools

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

    def find_class(self, module: str, name: str):
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR does not need")
        return _STAND_INS[module, name]


def _check_places(content: bytes) -> None:
    """UnpicklingError where a pickle numbers its objects beyond its bytes: Python takes memory for all up to them."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("LONG_BINPUT", "PUT") and argument > len(content):
            raise pickle.UnpicklingError(f"it numbers an object {argument:,}, and has {len(content):,} bytes")


def unpickled(content: bytes, name: str, what: str) -> dict:
    """The fields of a pickled dict; none of something else."""
    try:
        _check_places(content)
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise RuntimeError(f"{name} is not a {what}: {reason(error)}") from None
    if not isinstance(batch, dict):
        return {}
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
