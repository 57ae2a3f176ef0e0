"""The synthetic set at a few moments of a run, kept as sets of their own: ``RUN/snapshots/iteration-N.safetensors``."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastdd.core import ranks
from fastdd.session.callbacks import Callback

if TYPE_CHECKING:
    from fastdd.session.run import Run

FOLDER = "snapshots"
_NAME = re.compile(r"iteration-(\d+)\.safetensors")


def snapshot_iterations(iterations: int, count: int) -> list[int]:
    """0, and ``count - 1`` iterations from 1 to the last, evenly spaced by their logarithms: images change early.

    Fewer where a run has fewer iterations.

    Raises:
        ValueError: fewer than 2 snapshots.

    >>> snapshot_iterations(1000, 8)
    [0, 1, 3, 10, 32, 100, 316, 1000]
    >>> snapshot_iterations(3, 8)
    [0, 1, 2, 3]
    """
    if count < 2:
        raise ValueError(f"snapshots must be at least 2, the first images and the last, not {count}")
    spaced = np.rint(np.geomspace(1, iterations, count - 1)).astype(int).tolist() if count > 2 else [iterations]
    return sorted({0, *spaced, iterations})


class Snapshots(Callback):
    """Saves the set as it is after these iterations; what the run makes does not depend on it.

    A run pauses there after a checkpoint, so that a snapshot has the bits of the checkpointed images. What a kill takes
    away is made again, with the same bits, where the run is resumed.

    Args:
        iterations: when, 0 for the first images; those after the run's last are left out.
    """

    def __init__(self, iterations: Sequence[int]):
        self.agreement = (*iterations,)
        self._wanted = set(iterations)

    def pauses(self, run: "Run") -> bool:
        return run.step % run.steps_per_iteration == 0 and run.iteration in self._wanted

    def paused(self, run: "Run") -> None:
        made, iteration = run.synthetic(), run.iteration

        def save() -> None:
            folder = run.folder.path / FOLDER
            folder.mkdir(exist_ok=True)
            made.save(folder / f"iteration-{iteration:08d}.safetensors")

        ranks.first(save)
        self._wanted.discard(iteration)


def snapshot_files(run: str | os.PathLike) -> list[tuple[int, Path]]:
    """(iteration, file) of the snapshots in a run's folder, by iteration; empty where there are none."""
    folder = Path(run) / FOLDER
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]), path) for match, path in found if match)
