"""Published buffers of experts (MTT's ``replay_buffer_*.pt``), read and written."""

import math
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdd.core import bounds, files
from fastdd.data.zca import Zca
from fastdd.experts.store import (
    MANIFEST,
    VALUES,
    ZCA,
    Experts,
    TrajectoryFile,
    check_parameters,
    stored_shape,
    write_manifest,
)


def export_buffers(
    experts: Experts, folder: str | os.PathLike, per_file: int = 10, *, force: bool = False
) -> list[Path]:
    """Write published buffers: ``replay_buffer_0.pt`` ..., each a list of experts, of epochs, of float32 tensors.

    Args:
        experts: those stored in bf16 are widened to float32.
        folder: is made if it is not there; must not hold buffers, unless ``force``, which replaces them.
        per_file: experts a file (published: 10); that many are in memory at once.

    Returns:
        The files, in the experts' order.

    Raises:
        ValueError: ``folder`` has buffers already, or ``per_file`` is below 1.
        OSError: a file can't be written.
    """
    folder = Path(folder)
    if per_file < 1:
        raise ValueError(f"a file needs at least 1 expert, not {per_file}")
    there = sorted(folder.glob("replay_buffer_*.pt"))
    if there and not force:
        raise ValueError(f"{folder} holds {there[0].name} already; give an empty folder, or --force to replace it")
    folder.mkdir(parents=True, exist_ok=True)
    shapes = [parameter["shape"] for parameter in experts.manifest["parameters"]]
    sizes = [math.prod(shape) for shape in shapes]

    def snapshot(expert: int, epoch: int) -> list[Tensor]:
        parts = experts.at(expert, epoch).split(sizes)
        # A storage of its own for each: torch.save would write the whole vector with each view of it.
        return [part.view(shape).clone() for part, shape in zip(parts, shapes, strict=True)]

    for place in there:  # those that a kill leaves are all of these experts
        files.empty_place(place)
    written = []
    for number, first in enumerate(range(0, experts.number, per_file)):
        chosen = range(first, min(first + per_file, experts.number))
        content = [[snapshot(k, epoch) for epoch in range(experts.epochs + 1)] for k in chosen]
        path = folder / f"replay_buffer_{number}.pt"
        files.write_atomic(path, lambda file, content=content: torch.save(content, file))
        written.append(path)
    for path in there:  # links of an earlier export into more files
        if path not in written:
            path.unlink(missing_ok=True)
    return written


def import_buffers(
    paths: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    manifest: dict[str, Any],
    fit_zca: Callable[[], Zca] | None = None,
) -> Experts:
    """Make a folder of experts from published buffers, bit for bit in fp32.

    Args:
        paths: ``replay_buffer_*.pt`` files, in the order that their experts shall have. They are read without running
            code of theirs (``weights_only``), and mapped, not loaded.
        out: the folder; must be empty or absent.
        manifest: all but ``experts`` and ``zca_digest``; ``config`` gets its ``epochs`` and ``num_experts`` from the
            files.
        fit_zca: makes the whitening that the experts were trained with, if any; called when the files are checked.

    Raises:
        ValueError: no files, an ``out`` that is not empty, a file that is no buffer, one whose epochs are the same
            tensors, or one of another network.
        RuntimeError: a damaged file.
        FileNotFoundError: a file that is not there.
        OSError: another process writes there, or the disk is full.
    """
    out, paths = Path(out), [Path(path) for path in paths]
    if not paths:
        raise ValueError("no buffers to import")
    _check_empty(out)
    counts, lengths = [], set()
    for path in paths:
        buffer = _read_buffer(path, manifest["parameters"])
        counts.append(len(buffer))
        lengths |= {len(expert) for expert in buffer}
        if len(lengths) > 1:
            least, most = min(lengths) - 1, max(lengths) - 1
            raise ValueError(f"{path}: the experts differ in their epochs: from {least} to {most}")
    epochs, experts = lengths.pop() - 1, sum(counts)
    dtype = manifest["config"]["dtype"]
    config = {**manifest["config"], "epochs": epochs, "num_experts": experts}
    zca = None if fit_zca is None else fit_zca()
    manifest = {**manifest, "config": config, "experts": [None] * experts, "zca_digest": zca and zca.digest()}
    out.mkdir(parents=True, exist_ok=True)
    lock = files.hold(out)
    try:
        _check_empty(out)
        (out / ZCA).unlink(missing_ok=True)
        shape = stored_shape(manifest)
        TrajectoryFile.create(out / VALUES, shape, dtype)
        if zca is not None:
            zca.save(out / ZCA)
        experts_of_files = (expert for path in paths for expert in _read_buffer(path, manifest["parameters"]))
        with TrajectoryFile(out / VALUES, shape, dtype) as target:
            for number, expert in enumerate(experts_of_files):
                for epoch, snapshot in enumerate(expert):
                    target.write(number, epoch, torch.cat([part.flatten() for part in snapshot]))
                manifest["experts"][number] = {
                    "sha256": target.sha256(number, epochs).hexdigest(),
                    "seconds": None,
                    "evaluations": [],
                }
            target.sync()
        write_manifest(out, manifest)
    except BaseException:
        for name in (VALUES, ZCA, files.LOCK):
            (out / name).unlink(missing_ok=True)
        raise
    finally:
        if lock is not None:
            lock.close()
    return Experts.open(out)


def _check_empty(out: Path) -> None:
    """ValueError if a folder has anything but what a killed import leaves: values without a manifest."""
    left = () if (out / MANIFEST).exists() else (VALUES, ZCA)
    if out.exists() and files.entries(out, (files.LOCK, *left)):
        raise ValueError(f"{out} is not empty; give another folder")


def _read_buffer(path: Path, parameters: list[dict[str, Any]]) -> list[list[list[Tensor]]]:
    """A published buffer, checked: experts of epochs of the parameters' shapes."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        buffer = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch.load raises whatever its parser meets
        reason = files.reason(error)[:200]
        raise RuntimeError(f"{path} is not a buffer of tensors only, or is damaged: {reason}") from None
    described = "a list of experts, of epochs, of tensors"
    if not isinstance(buffer, list) or not buffer:
        raise ValueError(f"{path} is not a replay buffer ({described})")
    for number, expert in enumerate(buffer):
        if not isinstance(expert, list) or len(expert) < 2:
            raise ValueError(f"{path} is not a replay buffer ({described}): expert {number} has fewer than 2 epochs")
        for epoch, snapshot in enumerate(expert):
            tensors = isinstance(snapshot, list) and all(isinstance(part, Tensor) for part in snapshot)
            if not tensors or not all(part.dtype == torch.float32 and bounds.is_plain(part) for part in snapshot):
                raise ValueError(f"{path}: epoch {epoch} of expert {number} is not a list of float32 tensors")
            found = [
                {"name": parameters[i]["name"] if i < len(parameters) else str(i), "shape": list(part.shape)}
                for i, part in enumerate(snapshot)
            ]
            check_parameters(found, parameters, f"{path} has", "the network has")
            if not all(part.isfinite().all() for part in snapshot):
                raise ValueError(f"{path}: expert {number} is not finite at epoch {epoch}: it diverged")
        if all(first.is_set_to(last) for first, last in zip(expert[0], expert[-1], strict=True)):
            raise ValueError(
                f"{path}: the epochs of expert {number} are one and the same: on a CPU the published scripts store the "
                "last one only; write it with `fastdd run --device cpu buffer.py ...`"
            )
    return buffer
