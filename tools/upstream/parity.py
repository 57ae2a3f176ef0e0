"""What two runs of a script have in common: the tensors they stored, and the losses and accuracies they printed."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastdd.exchange import torch_files

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
# "loss = 0.31", "train acc: 12.5", "mean = 0.93"; not times, nor counts of images.
_SAID = re.compile(rf"(?P<what>loss\w*|acc\w*|mean)\s*(?:[=:]|is)\s*\(?(?P<value>{_NUMBER}|nan|inf)", re.IGNORECASE)


@dataclass(frozen=True)
class Parity:
    """How far two runs agree.

    Args:
        tensors: of those stored, how many have the same place and shape in both; of how many.
        difference: the largest of a value's, over the largest value of its tensor; None without tensors.
        printed: numbers that both printed, of how many.
        loss, accuracy: the largest differences: relative, and in points.
    """

    tensors: tuple[int, int]
    difference: float | None
    printed: tuple[int, int]
    loss: float | None
    accuracy: float | None

    def __str__(self) -> str:
        said = []
        if self.tensors[1]:
            which = "all" if self.tensors[0] == self.tensors[1] else f"{self.tensors[0]} of {self.tensors[1]}"
            said.append(f"{which} tensors within {short(self.difference)}")
        if self.loss is not None:
            said.append(f"losses {short(self.loss)}")
        if self.accuracy is not None:
            said.append(f"accuracy {self.accuracy:.2g} points")
        return ", ".join(said) or "nothing to compare"


def compare(first: Path, second: Path, patterns: list[str], outputs: tuple[str, str]) -> Parity:
    """Of files under two folders, and of two outputs."""
    ours, theirs = ([*_stored(folder, patterns)] for folder in (first, second))
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a.shape == b.shape]
    losses, accuracies = [], []
    said = [list(_SAID.finditer(text)) for text in outputs]
    for a, b in zip(*said, strict=False):
        x, y = float(a["value"]), float(b["value"])
        if a["what"].lower().startswith("loss"):
            losses.append(0.0 if x == y or (math.isnan(x) and math.isnan(y)) else abs(x - y) / max(abs(x), abs(y)))
        else:
            same = x == y or (math.isnan(x) and math.isnan(y))
            accuracies.append(0.0 if same else abs(x - y) * (1 if max(abs(x), abs(y)) > 1 else 100))
    return Parity(
        (len(pairs), max(len(ours), len(theirs))),
        max((_difference(a, b) for a, b in pairs), default=None),
        (min(map(len, said)), max(map(len, said))),
        max(losses, default=None),
        max(accuracies, default=None),
    )


def tensors(first: Path | None, second: Path | None) -> float | None:
    """The largest difference of the tensors in two files, as of stored values; None where one is not there."""
    if first is None or second is None:
        return None
    pairs = zip(torch_files.load(first), torch_files.load(second), strict=True)
    return max(_difference(a, b) for a, b in pairs)


def _stored(folder: Path, patterns: list[str]) -> Iterator[torch.Tensor]:
    # Folders are called by the time at times: files are taken in their order.
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            try:
                yield from _tensors(torch_files.load(path))
            except (RuntimeError, OSError):
                continue


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value.detach()
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    if not a.numel():
        return 0.0
    a, b = a.double(), b.double()
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))


def short(value: float | None) -> str:
    """A difference, for tables."""
    return "0" if not value else f"{value:.1e}"
