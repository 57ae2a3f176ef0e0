"""Weights of training images as an object and a file."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastdd.core import bounds, reading
from fastdd.core.files import DAMAGE, reason, write_atomic
from fastdd.core.text import shown
from fastdd.data import Dataset
from fastdd.debias.density.kde.checks import check_weights
from fastdd.debias.density.kde.diagnostics import Diagnostics, diagnose

SCHEMA = 1
_KEY = "fastdd-weights"


@dataclass(frozen=True, eq=False)
class KdeWeights:
    """Weights of a data set's training images, and what they were made of.

    Attributes:
        weights: float32 [N], at least 0; they sum to 1 over every class.
        log_density: float32 [N], log of the paper's equation 3 within the scope.
        embeddings: float32 [N, D].
        metadata: JSON-able: ``kde`` (the settings), ``gap``, ``versions``; of :func:`fastdd.kde_weights` also
            ``dataset``, ``dataset_digest``, ``embedding`` and ``diagnostics``.
    """

    weights: np.ndarray
    log_density: np.ndarray
    embeddings: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        of = self.metadata.get("dataset")
        images = f"{len(self.weights):,} images{f' of {of}' if of else ''}"
        return f"KdeWeights({images}, embedding of {self.embeddings.shape[-1]})"

    def diagnostics(self, labels: np.ndarray, groups: np.ndarray | None = None) -> Diagnostics:
        """What they do to every class; ``groups``, int64 [N], where known, tell the bias-conflicting images."""
        return diagnose(self.weights, labels, groups, self.metadata.get("gap"))

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file, atomically; equal content gives equal bytes.

        Raises:
            OSError: naming the file; it is then as it was.
        """
        from safetensors.numpy import save

        names = ("weights", "log_density", "embeddings")
        tensors = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in names}
        metadata = json.dumps({**self.metadata, "schema": SCHEMA}, sort_keys=True, allow_nan=False)
        content = save(tensors, metadata={_KEY: metadata})
        write_atomic(path, lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "KdeWeights":
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            RuntimeError: naming it: truncated, not a safetensors file, not weights, or a newer schema.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there are no weights {path}")
        try:
            with safe_open(path, "numpy") as file:
                text = (file.metadata() or {}).get(_KEY)
                if text is None:
                    raise RuntimeError(f"{path} is a safetensors file but has no weights of fastdd")
                metadata = reading.parse_json(text)
                if (schema := metadata.pop("schema", None)) != SCHEMA:
                    raise RuntimeError(f"{path} has the schema {shown(schema)}, this version reads {SCHEMA}")
                _check_about(metadata)
                weights = cls(*(file.get_tensor(name) for name in ("weights", "log_density", "embeddings")), metadata)
            check_weights(weights.weights, len(weights.embeddings))
            for name in ("log_density", "embeddings"):
                array, rank = getattr(weights, name), 1 + (name == "embeddings")
                if array.ndim != rank or len(array) != len(weights.weights) or array.dtype.kind != "f":
                    raise ValueError(f"its {name} are {array.dtype} {list(array.shape)}")
                if not np.isfinite(array).all():
                    raise ValueError(f"its {name} are not finite")
        except (SafetensorError, *DAMAGE) as error:
            raise RuntimeError(f"{path} is damaged, or no safetensors file: {reason(error)}") from None
        return weights


def _check_about(metadata: dict[str, Any]) -> None:
    """ValueError where what is gone by is of another kind than :func:`fastdd.kde_weights` writes."""
    for name in ("dataset", "dataset_digest"):
        if not isinstance(metadata.get(name), str | None):
            raise ValueError(f"its {name} is {shown(metadata[name])}")
    if metadata.get("gap") is not None and not reading.is_number(metadata["gap"]):
        raise ValueError(f"its gap is {shown(metadata['gap'])}")


def load_weights(path: str | os.PathLike, dataset: Dataset) -> np.ndarray:
    """Weights float32 [N] of the data set's training images, from a file of :meth:`KdeWeights.save` or a ``.npy``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights of another data set, or that are no weights (:func:`check_weights`), naming the file.
        RuntimeError: a file that can't be read.
    """
    path = Path(path)
    weights = load_array(path) if path.suffix == ".npy" else _load_of(path, dataset).weights
    try:
        check_weights(weights, len(dataset.train), dataset.train.labels)
    except ValueError as error:
        raise ValueError(f"{path}, for {dataset.name}: {error}") from None
    return weights.astype(np.float32)


def load_embeddings(path: str | os.PathLike, dataset: Dataset) -> np.ndarray:
    """Embeddings [N, D] of the data set's training images, from a file of :meth:`KdeWeights.save` or a ``.npy``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another data set.
        RuntimeError: a file that can't be read.
    """
    path = Path(path)
    return load_array(path) if path.suffix == ".npy" else _load_of(path, dataset).embeddings


def _load_of(path: Path, dataset: Dataset) -> KdeWeights:
    weights = KdeWeights.load(path)
    digest = weights.metadata.get("dataset_digest")
    if digest is not None and digest != dataset.digest():
        raise ValueError(
            f"{path} is of {weights.metadata.get('dataset')} with digest {digest[:12]}, "
            f"not of this {dataset.name} with digest {dataset.digest()[:12]}"
        )
    return weights


def load_array(path: Path) -> np.ndarray:
    """The one array of a ``.npy`` file.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: naming it: it holds anything else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        array = bounds.load_npy(path)
    except DAMAGE as error:
        raise RuntimeError(f"{path} is not a .npy file of numbers: {reason(error)}") from None
    return array
