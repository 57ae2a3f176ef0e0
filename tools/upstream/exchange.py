"""Files that published code wrote, read by fastdd and written again: the same bits, or what differs."""

import tempfile
from pathlib import Path
from typing import Any

import torch

import fastdd
from fastdd import api
from fastdd.exchange import torch_files
from fastdd.experts.buffers import export_buffers
from recipes import Files


def there_and_back(files: Files, folder: Path, data: Path) -> str:
    """``import``, ``export`` in the format that was read, and ``import`` again; in words.

    ``data``: holds ``cifar10/``, on which experts were trained.
    """
    path = next(iter(sorted(folder.glob(files.path))), None)
    if path is None:
        return f"{files.path}: not written"
    try:
        found = _buffers(path, files.options, data) if files.format == "buffers" else _set(path, files.options)
    except (ValueError, RuntimeError, OSError) as error:
        return f"{path.name}: {error}"
    return f"{path.name}: {found}"


def _set(path: Path, options: dict[str, Any]) -> str:
    given = dict(options)
    to = given.pop("to")
    made = fastdd.import_synthetic(path, **given)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set.npz" if to == "npz" else Path(folder)
        written = fastdd.export_synthetic(made, target, to=to)
        again = fastdd.import_synthetic(target if target.is_file() else _door(written.files, to))
    same = torch.equal(made.images, again.images) and torch.equal(made.targets, again.targets)
    off = float((made.images - again.images).abs().max())
    return f"{len(made.images)} images in and out as {to}, " + ("bits equal" if same else f"within {off:.1e}")


def _door(files: list[Path], to: str) -> Path:
    return files[0].parent if to == "mtt" else files[0]


def _buffers(path: Path, options: dict[str, Any], data: Path) -> str:
    """Of experts: what ``fastdd experts`` has of them, written again."""
    stored = torch_files.load(path)
    with tempfile.TemporaryDirectory() as folder:
        experts = api.import_experts([path], fastdd.data.load("cifar10", data), out=Path(folder) / "experts", **options)
        (again,) = export_buffers(experts, Path(folder) / "buffers", per_file=len(stored))
        written = torch_files.load(again)
    same = all(
        torch.equal(a, b)
        for one, other in zip(stored, written, strict=True)
        for before, after in zip(one, other, strict=True)
        for a, b in zip(before, after, strict=True)
    )
    return f"{len(stored)} experts of {len(stored[0]) - 1} epochs in and out, " + ("bits equal" if same else "differ")
