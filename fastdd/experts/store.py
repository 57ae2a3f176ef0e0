"""Expert trajectories: the parameters of networks after every epoch of training, which trajectory matching follows.

A folder holds ``trajectories.npy``, one array [experts, epochs + 1, parameters] that is mapped, not loaded (float32, or
uint16 with the bits of bfloat16); ``manifest.json``, which says what it is; and ``zca.safetensors`` where the images
were whitened.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastdd.core import bounds, files, plugins, reading
from fastdd.core.text import shown
from fastdd.data.zca import Zca

MANIFEST, VALUES, ZCA = "manifest.json", "trajectories.npy", "zca.safetensors"
SCHEMA = 1
# What is stored: the values' type, and that of the .npy file, as numpy has no bfloat16.
DTYPES = {"fp32": (torch.float32, np.dtype("<f4")), "bf16": (torch.bfloat16, np.dtype("<u2"))}


def parameter_list(net: nn.Module) -> list[dict[str, Any]]:
    """Name and shape of every parameter of ``net``, in the order in which a trajectory has them."""
    return [{"name": name, "shape": list(parameter.shape)} for name, parameter in net.named_parameters()]


class Experts:
    """Parameters of K experts after each of E epochs.

    Args:
        values: [K, E + 1, P] float32 or bfloat16; [k, 0] is an expert's initialisation.
        manifest: what they are; ``parameters`` ([{"name", "shape"}], in the order of ``net.named_parameters()``, in
            which they are flattened and concatenated) is required. :meth:`open` has the rest: ``config``, ``dataset``,
            ``class_names``, ``experts`` and more.
        zca: the whitening of the images that the experts saw, if any.

    Raises:
        TypeError: values of another type.
        ValueError: values of another shape than the manifest says.

    Attributes:
        number, epochs, parameters: K, E and P.
        path: their folder, where they were opened.
    """

    def __init__(self, values: Tensor, manifest: dict[str, Any], zca: Zca | None = None):
        if values.dtype not in (torch.float32, torch.bfloat16):
            raise TypeError(f"trajectories must be float32 or bfloat16, not {values.dtype}")
        size = sum(math.prod(parameter["shape"]) for parameter in manifest["parameters"])
        if values.ndim != 3 or values.shape[2] != size:
            raise ValueError(f"trajectories must be [experts, epochs + 1, {size}], not {list(values.shape)}")
        self.values, self.manifest, self.zca, self.path = values, manifest, zca, None
        self.number, self.epochs, self.parameters = values.shape[0], values.shape[1] - 1, values.shape[2]

    def __repr__(self) -> str:
        of = self.manifest.get("dataset", "unknown data")
        return f"Experts({self.number} of {self.epochs} epochs, {self.parameters:,} parameters, {of})"

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Experts":
        """The experts in a folder, mapped: nothing is read until it is used.

        Raises:
            FileNotFoundError: there are none.
            RuntimeError: naming file and cause: unfinished, truncated, or damaged.
        """
        path = Path(path)
        manifest = read_manifest(path)
        done = sum(expert is not None for expert in manifest["experts"])
        if done < len(manifest["experts"]):
            raise RuntimeError(
                f"{path} holds {done} of {len(manifest['experts'])} experts; finish it with fastdd experts --resume"
            )
        shape = stored_shape(manifest)
        dtype, stored = DTYPES[manifest["config"]["dtype"]]
        check_values_file(path / VALUES, shape, stored)
        values = torch.from_numpy(bounds.map_npy(path / VALUES)).view(dtype)
        zca = None
        if manifest["zca_digest"] is not None:
            zca = Zca.load(path / ZCA)
            if zca.digest() != manifest["zca_digest"]:
                raise RuntimeError(f"{path / ZCA} is not the whitening of these experts: its digest differs")
        opened = cls(values, manifest, zca)
        opened.path = path
        return opened

    def about(self, *names: str) -> list[Any]:
        """Entries of the manifest; RuntimeError where one is missing, as of experts that other code wrote."""
        missing = [name for name in names if name not in self.manifest]
        if missing:
            where = MANIFEST if self.path is None else self.path / MANIFEST
            raise RuntimeError(f"{where} of the experts has no {missing[0]}: train or import them again")
        return [self.manifest[name] for name in names]

    def at(self, expert: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
        """Parameters of an expert after ``epoch`` epochs (0: its initialisation), float32 [P]; a copy."""
        return self.values[expert, epoch].to(device=device, dtype=torch.float32, copy=True)

    def check_network(self, net: nn.Module, name: str) -> None:
        """ValueError in one line unless the experts have the parameters of ``net``, which is called ``name``."""
        check_parameters(self.manifest["parameters"], parameter_list(net), "the experts have", f"{name} has")

    def check_epochs(self, max_start_epoch: int, expert_epochs: int) -> None:
        """ValueError unless ``expert_epochs`` epochs follow each of the start epochs 0..max_start_epoch - 1."""
        needed = max_start_epoch - 1 + expert_epochs
        if needed > self.epochs:
            raise ValueError(
                f"the experts were trained for {self.epochs} epochs; max_start_epoch {max_start_epoch} with "
                f"expert_epochs {expert_epochs} needs {needed}: lower either, or train longer"
            )

    def digest(self) -> str:
        """SHA-256 (hex) of the parameters' names and shapes, of the values and of the whitening.

        From the manifest's SHA-256 of every expert where it has them, so that nothing is read; timings and evaluations
        are not in it.
        """
        records = self.manifest.get("experts") or []
        sums = [record["sha256"] for record in records] or [values_digest(values) for values in self.values]
        content = {
            "parameters": self.manifest["parameters"],
            "dtype": str(self.values.dtype),
            "experts": sums,
            "zca": None if self.zca is None else self.zca.digest(),
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def damaged(self) -> list[int]:
        """Experts whose values are not those that were written (SHA-256 of the manifest); reads everything."""
        records = enumerate(self.manifest["experts"])
        return [k for k, record in records if values_digest(self.values[k]) != record["sha256"]]


def values_digest(values: Tensor) -> str:
    """SHA-256 (hex) of the bytes of one expert's values [E + 1, P]."""
    sha = hashlib.sha256()
    for row in values:
        sha.update(_bytes(row))
    return sha.hexdigest()


def _bytes(row: Tensor) -> memoryview:
    row = row.detach().cpu().contiguous()
    return memoryview((row.view(torch.int16) if row.dtype == torch.bfloat16 else row).numpy()).cast("B")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a folder, finished or not; FileNotFoundError or RuntimeError naming the file and the cause."""
    path = path / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"there are no experts in {path.parent}: {MANIFEST} is missing")
    with reading.damage_of(path, "is not a manifest of experts"):
        manifest = reading.parse_json(reading.text(path))
        schema = manifest["schema"]
        if schema != SCHEMA:
            raise RuntimeError(f"{path} has schema {shown(schema)}; this version reads {SCHEMA}")
        missing = {"config", "parameters", "experts", "zca_digest"} - manifest.keys()
        if missing:
            raise KeyError(sorted(missing)[0])
        _check_manifest(manifest)
    plugins.recall(manifest.get("plugins"))
    return manifest


def _check_manifest(manifest: dict[str, Any]) -> None:
    """ValueError where an entry is of another kind than training and import write."""
    kinds = {"dataset": str, "channels": int, "num_classes": int, "size": list, "config": dict, "class_names": list}
    for name, kind in kinds.items():
        if name in manifest and not isinstance(manifest[name], kind):
            raise ValueError(f"{name} is {shown(manifest[name])}")
    if manifest["config"]["dtype"] not in DTYPES:
        raise ValueError(f"dtype is {shown(manifest['config']['dtype'])}")
    for parameter in manifest["parameters"]:
        if not isinstance(parameter["name"], str) or not all(map(reading.is_count, parameter["shape"])):
            raise ValueError(f"a parameter is {shown(parameter)}")
    for expert in manifest["experts"]:
        if expert is not None and not isinstance(expert["sha256"], str):
            raise ValueError(f"an expert is {shown(expert)}")
    if not all(map(reading.is_count, stored_shape(manifest))) or not manifest["experts"]:
        raise ValueError(f"it is of {len(manifest['experts'])} experts of {shown(manifest['config']['epochs'])} epochs")
    size = manifest.get("size", [1, 1])
    if len(size) != 2 or not all(map(reading.is_count, size)):
        raise ValueError(f"size is {shown(size)}")


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder, whole; its ``schema`` is set here."""
    files.write_text(path / MANIFEST, json.dumps({"schema": SCHEMA, **manifest}, indent=1) + "\n")


def stored_shape(manifest: dict[str, Any]) -> tuple[int, int, int]:
    """Experts, epochs + 1 and parameters of a manifest."""
    size = sum(math.prod(parameter["shape"]) for parameter in manifest["parameters"])
    return len(manifest["experts"]), manifest["config"]["epochs"] + 1, size


def check_values_file(path: Path, shape: tuple[int, int, int], stored: np.dtype) -> None:
    """RuntimeError unless ``path`` is a .npy file of this shape and type, of full length."""
    if not path.is_file():
        raise RuntimeError(f"{path} is missing")
    header, size = _header(shape, stored), path.stat().st_size
    expected = len(header) + math.prod(shape) * stored.itemsize
    if size != expected:
        raise RuntimeError(
            f"{path} has {size} bytes, not {expected}: it is {'truncated' if size < expected else 'damaged'}"
        )
    with open(path, "rb") as file:
        if file.read(len(header)) != header:
            raise RuntimeError(f"{path} is damaged: its header is not that of {stored} {list(shape)}")


def _header(shape: tuple[int, ...], stored: np.dtype) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.lib.format.dtype_to_descr(stored), "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


class TrajectoryFile:
    """The write side of ``trajectories.npy``: rows in any order, by several processes.

    Args:
        path: the file; it must be there with this shape and type (:meth:`create`).
        shape: [experts, epochs + 1, parameters].
        dtype: fp32 or bf16.

    Raises:
        RuntimeError: another file, or one of another length.
        OSError: it can't be written.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: str):
        self._dtype, stored = DTYPES[dtype]
        check_values_file(path, shape, stored)
        self._shape, self._path = shape, path
        self._start, self._row = len(_header(shape, stored)), shape[2] * stored.itemsize
        self._file = os.open(path, os.O_RDWR)

    @staticmethod
    def create(path: Path, shape: tuple[int, int, int], dtype: str) -> None:
        """Make the file, of zeros, with its space on the disk; OSError naming it if there is not enough."""
        header = _header(shape, DTYPES[dtype][1])
        size = len(header) + math.prod(shape) * DTYPES[dtype][1].itemsize

        def write(file) -> None:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            file.write(header)
            file.truncate(size)

        try:
            files.write_atomic(path, write)
        except OSError as error:
            raise files.WriteError(
                error.errno, f"{error.strerror} ({size / 2**20:.1f} MiB for the trajectories)"
            ) from error

    def write(self, expert: int, epoch: int, parameters: Tensor) -> memoryview:
        """Store float32 [P]; on the disk only after :meth:`sync`. Returns the bytes."""
        content = whole = _bytes(parameters.detach().to(self._dtype))
        offset = self._offset(expert, epoch)
        while content:
            written = os.pwrite(self._file, content, offset)
            content, offset = content[written:], offset + written
        return whole

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._file)

    def sha256(self, expert: int, epochs: int) -> "hashlib._Hash":
        """SHA-256, to be continued, of what is stored for an expert from its initialisation to epoch ``epochs``."""
        sha = hashlib.sha256()
        for epoch in range(epochs + 1):
            sha.update(os.pread(self._file, self._row, self._offset(expert, epoch)))
        return sha

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> "TrajectoryFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _offset(self, expert: int, epoch: int) -> int:
        return self._start + (expert * self._shape[1] + epoch) * self._row


def check_parameters(found: Sequence[dict], wanted: Sequence[dict], own: str, other: str) -> None:
    """ValueError in one line that names the first parameter in which two lists differ."""
    for number, (a, b) in enumerate(zip(found, wanted, strict=False)):
        if list(a["shape"]) != list(b["shape"]) or a["name"] != b["name"]:
            raise ValueError(
                f"{own} another network: their parameter {number} is {a['name']} {list(a['shape'])}, "
                f"{other} {b['name']} {list(b['shape'])}"
            )
    if len(found) != len(wanted):
        raise ValueError(f"{own} {len(found)} parameters, {other} {len(wanted)}: they are of another network")
