"""Weights and groups of the training images: as a user gives them, and as the folder of a run keeps them."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdd.api.weights import kde_weights, pseudo_groups
from fastdd.core import files, ranks, reading
from fastdd.core.files import GROUPS, WEIGHTS
from fastdd.data import Dataset
from fastdd.debias.density import clusters, kde
from fastdd.models import EMBEDDING_DIM

Weights = kde.KdeWeights | np.ndarray | torch.Tensor | str | os.PathLike
Groups = np.ndarray | str | os.PathLike


@dataclass(frozen=True, eq=False)
class SampleWeights:
    """Checked weights of the training images.

    Attributes:
        values: [N], as they were given.
        about: what they are, JSON-able, with their diagnostics.
        kde: all that they were made of, where that is known.
    """

    values: np.ndarray
    about: dict[str, Any]
    kde: kde.KdeWeights | None


def read_weights(data: Dataset, weights: Weights) -> SampleWeights:
    """Weights from :func:`fastdd.kde_weights`, an array [N], or the path of either.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights of other images, below 0, not finite, or all 0 in a class.
        RuntimeError: a file that can't be read.
    """
    if isinstance(weights, str | os.PathLike):
        values, about = kde.load_weights(weights, data), {"source": Path(weights).name}
        if Path(weights).suffix != ".npy":
            weights = kde.KdeWeights.load(weights)
    elif not isinstance(weights, kde.KdeWeights):
        values, about = np.asarray(torch.as_tensor(weights).cpu()), {"source": "array"}
    if isinstance(weights, kde.KdeWeights):
        values, about = weights.weights, weights.metadata
    diagnostics = kde.diagnose(values, data.train.labels, data.train.groups if data.num_groups > 1 else None)
    if not about.get("warnings"):
        kde.warn(diagnostics, data.class_names)
    whole = weights if isinstance(weights, kde.KdeWeights) else None
    return SampleWeights(values, {**about, "diagnostics": asdict(diagnostics)}, whole)


def weights_of_run(
    data: Dataset, weights: SampleWeights | None, folder: Path | None, resume: bool, **embedding: Any
) -> SampleWeights:
    """A run's weights: those given, else those in the folder of a run that is resumed, else new ones.

    They are kept in the folder, where all that they were made of is known. ``embedding``: seed, device, progress.
    """
    stored = None if folder is None else folder / WEIGHTS
    kept = ranks.first(lambda: resume and stored is not None and stored.exists())
    if weights is None:
        weights = read_weights(data, stored if kept else kde_weights(data, **embedding))
    if weights.kde is not None and stored is not None and not kept:
        ranks.first(lambda: _keep(stored, weights.kde.save))
    return weights


def bytes_of_samples(images: int) -> int:
    """What the weights or groups of so many training images take in a run's folder, at most."""
    return 4 * images * (EMBEDDING_DIM + 2)


def clustering(groups: object) -> str | None:
    """The clustering that finds a run's groups; None where they are given, or none are."""
    return groups if isinstance(groups, str) and groups in clusters.METHODS else None


def read_groups(data: Dataset, groups: Groups | None) -> np.ndarray | None:
    """Groups that are an array int64 [N] or the path of one; None where there are none yet (:func:`clustering`).

    Raises:
        FileNotFoundError: no such file.
        TypeError: something else than an array, a path or a clustering.
        ValueError: another shape or type, or a group below 0.
        RuntimeError: a file that can't be read.
    """
    if groups is None or clustering(groups):
        return None
    if isinstance(groups, str | os.PathLike):
        path, groups = groups, kde.load_array(Path(groups))
        with reading.damage_of(path, "is of no groups", ValueError):
            data.with_groups(groups)
    elif not isinstance(groups, np.ndarray):
        known = " or ".join(clusters.METHODS)
        raise TypeError(f"groups are an array int64 [N], the path of one, {known}, not {type(groups).__name__}")
    data.with_groups(groups)
    return groups


def clusters_of_run(data: Dataset, method: str, folder: Path | None, resume: bool, **embedding: Any) -> np.ndarray:
    """A run's groups that a clustering finds; kept in its folder, and read from that of a run that is resumed."""
    stored = None if folder is None else folder / GROUPS
    if ranks.first(lambda: resume and stored is not None and stored.exists()):
        return read_groups(data, stored)
    groups, _ = pseudo_groups(data, method=method, **embedding)
    if stored is not None:
        ranks.first(lambda: _keep(stored, lambda path: files.write_atomic(path, lambda file: np.save(file, groups))))
    return groups


def _keep(path: Path, save: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path)
