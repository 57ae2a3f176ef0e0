"""What a registered mode must do, tried on small batches."""

from collections.abc import Callable

import numpy as np
import torch

from fastdd.debias.base import Mode
from fastdd.debias.segments import Batch, Segments

_CLASSES, _GROUPS, _TOLERANCE = 2, 3, 1e-4


def check_mode(name: str, mode: Mode) -> None:
    """Try a mode on two batches of two classes and three groups, one of which lacks a group.

    Raises:
        TypeError: segments that are none, or of other types.
        ValueError: segments that do not fit together, weights that do not sum to 1 over each, other numbers of segments
            in the two, or weights in training that do not fit.
    """
    counts = [_of_batch(name, mode, groups) for groups in ([0, 0, 1, 2, 0, 1, 2, 2], [0, 0, 0, 1, 0, 0, 1, 1])]
    if counts[0] != counts[1] and not mode.waits:
        raise ValueError(
            f"mode {name}: {counts[0]} segments of one batch and {counts[1]} of another, which lacks a group: let that "
            "be an empty segment, or say waits=True"
        )
    if mode.in_training is not None:
        _check_in_training(name, mode.in_training)


def _of_batch(name: str, mode: Mode, groups: list[int]) -> int:
    classes = torch.arange(_CLASSES).repeat_interleave(len(groups) // _CLASSES)
    counts = torch.zeros(_CLASSES, _GROUPS, dtype=torch.int64)
    counts.index_put_((classes, torch.tensor(groups)), torch.full((len(groups),), 10), accumulate=True)
    batch = Batch(
        torch.arange(len(groups)) + 100,
        classes,
        torch.tensor(groups),
        _CLASSES,
        _GROUPS,
        counts,
        torch.linspace(0.1, 1, len(groups)) if mode.needs == "weights" else None,
        torch.linspace(-1, 1, 4 * len(groups)).view(-1, 4) if mode.needs == "embeddings" else None,
    )
    try:
        made = mode.segments(batch)
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"mode {name} fails on a batch of {_CLASSES} classes and {_GROUPS} groups: {line}") from error
    if not isinstance(made, Segments):
        raise TypeError(f"mode {name}: it makes {type(made).__name__} of a batch, not fastdd.debias.Segments")
    wrong = _trouble(made, batch)
    if wrong is not None:
        raise ValueError(f"mode {name}: {wrong}")
    return len(made.classes)


def _trouble(made: Segments, batch: Batch) -> str | None:
    """What is wrong with segments of a batch, in words."""
    for what in ("rows", "offsets", "weights", "classes"):
        tensor, dtype = getattr(made, what), torch.float32 if what == "weights" else torch.int64
        if not isinstance(tensor, torch.Tensor) or tensor.dtype != dtype or tensor.dim() != 1:
            found = (
                f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            )
            return f"its {what} are {found}, not {dtype} of one dimension"
    ends, samples = made.offsets, len(made.rows)
    if len(ends) != len(made.classes) + 1 or ends[0] != 0 or ends[-1] != samples or (ends.diff() < 0).any():
        return f"its offsets are {ends.tolist()}, for {len(made.classes)} segments of {samples} samples"
    if len(made.weights) != samples:
        return f"it has {len(made.weights)} weights for {samples} samples"
    if (made.classes.diff() < 0).any() or set(made.classes.tolist()) - set(range(batch.num_classes)):
        return f"the classes of its segments are {made.classes.tolist()}: from 0, and never falling"
    of_row = dict(zip(batch.rows.tolist(), batch.classes.tolist(), strict=True))
    of_samples = made.classes.repeat_interleave(ends.diff()).tolist()
    for row, label in zip(made.rows.tolist(), of_samples, strict=True):
        if of_row.get(row) != label:
            return f"row {row} is in a segment of class {label}, and is of {of_row.get(row, 'no class of the batch')}"
    if not bool(made.weights.isfinite().all()) or (made.weights < 0).any():
        return "its weights are not finite, or below 0"
    sums = torch.segment_reduce(made.weights.double(), "sum", offsets=ends, unsafe=True, initial=0)
    off = (ends.diff() > 0) & ((sums - 1).abs() > _TOLERANCE)
    if off.any():
        number = int(off.nonzero()[0])
        return f"the weights of segment {number} sum to {sums[number]:.4g}, not to 1"
    return None


def _check_in_training(name: str, in_training: Callable[..., np.ndarray | None]) -> None:
    labels, groups = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 1])
    try:
        share = in_training(labels, groups, np.array([0.2, 0.3, 0.5, 0.1, 0.9]))
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"mode {name}: in_training fails on 5 labels, groups and weights: {line}") from error
    if share is None:
        return
    if not isinstance(share, np.ndarray) or share.dtype != np.float64 or share.shape != labels.shape:
        found = f"{share.dtype} {list(share.shape)}" if isinstance(share, np.ndarray) else type(share).__name__
        raise TypeError(f"mode {name}: in_training returns {found} for 5 images, not float64 [5] or None")
    sums = np.bincount(labels, share)
    if not np.allclose(sums, 1, atol=_TOLERANCE):
        raise ValueError(f"mode {name}: its weights in training sum to {sums.round(4).tolist()} over classes, not to 1")
