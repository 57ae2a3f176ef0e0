"""numpy's archives: everything that a synthetic set has, as arrays, readable without fastdd or torch.

images float32 [M, C, H, W], labels int64 [M], mean, std [C], class_names [classes]; where there are any learning_rate,
soft_labels [M, classes], groups int64 [M], zca_mean and zca_matrix; metadata as JSON text, where ``formation`` f says
that an image holds f x f.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdd.core.files import write_atomic
from fastdd.core.reading import parse_json
from fastdd.data.synthetic import SyntheticSet
from fastdd.data.zca import Zca
from fastdd.exchange.dc import normalisation, several
from fastdd.exchange.found import Content, Export, Found, as_record, check_free

DESCRIPTION = "an .npz file with the arrays images and labels"


def matches(content: Content) -> bool:
    value = content.value
    return isinstance(value, dict) and {"images", "labels"} <= set(value) and isinstance(value["images"], np.ndarray)


def read(content: Content) -> Found:
    path, arrays = content.path, content.value
    record = _record(arrays, path)
    found = Found(
        arrays["images"],
        arrays["labels"],
        "normalised",
        [path],
        record,
        soft_labels=arrays.get("soft_labels"),
        groups=arrays.get("groups"),
        about={} if record.get("method") else {"method": "npz"},
    )
    if "class_names" in arrays:
        found.class_names = tuple(map(str, arrays["class_names"].tolist()))
    if "learning_rate" in arrays:
        found.learning_rate = float(_sized(arrays["learning_rate"], 1, "learning_rate", path)[0])
    if {"zca_mean", "zca_matrix"} <= set(arrays):
        try:
            found.zca = Zca(*(torch.from_numpy(arrays[name]) for name in ("zca_mean", "zca_matrix")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
    return found


def _record(arrays: dict[str, np.ndarray], path: Path) -> dict[str, Any]:
    record: dict[str, Any] = {}
    if "metadata" in arrays:
        try:
            record = as_record(parse_json(str(arrays["metadata"]))) or {}
        except ValueError:
            raise ValueError(f"{path}: metadata is not JSON") from None
    if {"mean", "std"} <= set(arrays):
        channels = arrays["images"].shape[1] if arrays["images"].ndim == 4 else 0
        record |= {name: _sized(arrays[name], channels, name, path).tolist() for name in ("mean", "std")}
    return record


def _sized(array: np.ndarray, size: int, name: str, path: Path) -> np.ndarray:
    if array.size != size or array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name} needs {size} numbers, not {array.size} of {array.dtype}")
    return array.reshape(-1)


def write(made: SyntheticSet, path: Path, *, force: bool = False) -> Export:
    """Arrays of every part."""
    if path.suffix != ".npz":
        raise ValueError(f"{path} must end in .npz")
    check_free([path], force)
    arrays = {
        "images": made.images.detach().cpu().numpy(),
        "labels": made.labels.cpu().numpy(),
        "mean": np.array(made.metadata["mean"]),
        "std": np.array(made.metadata["std"]),
        "class_names": np.array(made.metadata["class_names"]),
        "metadata": np.array(json.dumps(made.metadata, sort_keys=True)),
    }
    if made.soft_labels is not None:
        arrays["soft_labels"] = made.soft_labels.detach().cpu().numpy()
    if made.groups is not None:
        arrays["groups"] = made.groups.cpu().numpy()
    if made.learning_rate is not None:
        arrays["learning_rate"] = np.array(made.learning_rate)
    if made.zca is not None:
        arrays |= {f"zca_{name}": getattr(made.zca, name).cpu().numpy() for name in ("mean", "matrix")}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))
    notes = [] if made.zca is not None else normalisation(made)
    return Export([path], [*notes, *several(made)])
