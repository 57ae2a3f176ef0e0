"""Sizes that files state, checked before memory is taken for them."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

# Compressed content may unpack to so many times its own size; MNIST, mostly black, unpacks to 5 times its size.
MOST_TIMES = 100
# Below this, whatever the ratio: small files of equal values are no attack.
ALWAYS_BYTES = 64 << 20
# Of a settings file, with every alias written out.
_MOST_NODES = 100_000


def most_bytes(packed: int) -> int:
    """What compressed content of this size may unpack to."""
    return max(ALWAYS_BYTES, MOST_TIMES * packed)


def check_unpacked(name: object, unpacked: int, packed: int) -> None:
    """RuntimeError in one line, naming the file, if it would unpack to far more than it is."""
    if unpacked > most_bytes(packed):
        raise RuntimeError(
            f"{name} would unpack to {unpacked:,} bytes or more from {packed:,}, over {MOST_TIMES} times as many: "
            "it is damaged, or made to fill the memory; get it again, or unpack it yourself"
        )


def check_zip(path: Path) -> None:
    """RuntimeError, naming the archive, if its members would unpack to far more than it is."""
    with zipfile.ZipFile(path) as archive:
        check_unpacked(path, sum(member.file_size for member in archive.infolist()), path.stat().st_size)


def load_npy(path: Path) -> np.ndarray:
    """The one array of numbers of a ``.npy`` file, in memory.

    Raises:
        RuntimeError: naming the file: it holds anything else, or fewer bytes than its header asks for.
        OSError: it can't be read.
    """
    return np.array(map_npy(path))


def map_npy(path: Path) -> np.ndarray:
    """The one array of numbers of a ``.npy`` file, mapped; what is written to it stays in memory.

    Raises:
        RuntimeError, OSError: as :func:`load_npy`.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise RuntimeError(f"{path} is not a .npy file of numbers, but a folder, pipe or device")
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":  # of an .npz, which numpy.load takes too
                file.seek(0)
                _check_header(file, path.name, path.stat().st_size)
        # numpy takes the memory for what a header says before it reads, but compares what it maps. Copy on write, as
        # torch has no arrays that can't be written.
        with np.errstate(over="ignore"):
            array = np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a damaged header is parsed as Python, and can raise nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RuntimeError(f"{path} is not a .npy file of numbers, or is cut short: {reason}") from None
    if not isinstance(array, np.ndarray):
        raise RuntimeError(f"{path} holds several arrays; save one with numpy.save")
    return array


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` archive, by name; that it does not unpack to far more is :func:`check_zip`'s.

    Raises:
        ValueError: an array of Python objects, or one with fewer bytes than its header asks for.
        OSError, EOFError, zipfile.BadZipFile: a damaged archive.
    """
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                _check_header(file, member.filename, member.file_size)
            with archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _check_header(file: IO[bytes], name: str, size: int) -> None:
    """ValueError where the header of a ``.npy`` file of ``size`` bytes is none, or asks for more than there is."""
    header = np.lib.format
    try:
        version = header.read_magic(file)
        read = header.read_array_header_1_0 if version == (1, 0) else header.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # it is parsed as Python, and can raise nearly anything
        raise ValueError(f"{name} has no header of an array ({' '.join(str(error).split())[:200]})") from None
    if dtype.hasobject:
        return  # numpy refuses it, in words that are known
    # numpy divides by the size of a value, and ends the process where that is 0.
    if dtype.itemsize == 0 or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError(f"{name} has no header of an array ({dtype.str} {shape})")
    wanted, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if wanted > there:
        raise ValueError(f"{name} has {there:,} bytes of values, its header asks for {wanted:,}")


def is_plain(tensor: Any) -> bool:
    """Whether a tensor is on the CPU with all its values: a small file can repeat some by strides of zero."""
    if str(tensor.layout) != "torch.strided" or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


class _Loader(yaml.SafeLoader):
    """Without documents whose aliases, written out, would be more than anyone has written."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        _nodes(node, {})
        return node


def _nodes(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many nodes there are below and at ``node``, those behind aliases counted at every use."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = _MOST_NODES  # of one that holds itself
        children = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_nodes(child, known) for child in children)
    if known[id(node)] > _MOST_NODES:
        raise yaml.YAMLError(f"its aliases stand for more than {_MOST_NODES:,} values: write them out, or leave it")
    return known[id(node)]


def load_yaml(text: str) -> Any:
    """What YAML text says, of plain values.

    Raises:
        yaml.YAMLError: no YAML, or nested or aliased without end.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None
