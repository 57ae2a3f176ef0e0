"""Repeats of a distillation: a folder with a run's folder for every seed."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fastdd.session.folder import CONFIG, SYNTHETIC

_NAME = re.compile(r"seed-(0|[1-9]\d*)")
# Far beyond what anyone repeats; a number here is more likely a seed.
_MOST = 1000


def parse_seeds(text: str) -> list[int]:
    """Seeds as people give them: how many, from 0, or which, joined by commas.

    Raises:
        ValueError: anything else, or a seed twice.

    >>> parse_seeds("3"), parse_seeds("4,7"), parse_seeds("7,")
    ([0, 1, 2], [4, 7], [7])
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) > 1 and not words[-1]:
        words.pop()
    if not all(re.fullmatch(r"\d{1,18}", word, re.ASCII) for word in words):
        raise ValueError(f"seeds are how many, as in 3, or which, as in 0,1,2; not {text!r}")
    numbers = [int(word) for word in words]
    if "," not in text:
        if not 1 <= numbers[0] <= _MOST:
            raise ValueError(f"{numbers[0]} distillations: at least 1, at most {_MOST}; a single seed is --seed")
        return list(range(numbers[0]))
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise ValueError(f"seed {twice[0]} is there twice: {text}")
    return numbers


def folder_of_seed(out: Path, seed: int) -> Path:
    """Where the run of a seed is kept."""
    return out / f"seed-{seed}"


def check_repeats(out: Path) -> None:
    """ValueError if ``out`` is a run's own folder, or has other things than repeats."""
    if (out / CONFIG).exists():
        raise ValueError(f"{out} holds a single run; repeats need a folder of their own, choose another --out")
    stray = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
    if stray and not any(map(_NAME.fullmatch, stray)):
        raise ValueError(f"{out} is not empty and holds no repeats (it has {stray[0]!r}); give an empty folder")


def runs_of(path: str | os.PathLike) -> dict[int, Path]:
    """The runs of a folder of repeats, by seed, in order; empty for anything else, a run's own folder too."""
    path = Path(path)
    if not path.is_dir() or (path / CONFIG).exists():
        return {}
    found = {}
    for entry in path.iterdir():
        match = _NAME.fullmatch(entry.name)
        if match and ((entry / CONFIG).exists() or (entry / SYNTHETIC).exists()):
            found[int(match[1])] = entry
    return dict(sorted(found.items()))


def finished(runs: dict[int, Path], path: str | os.PathLike, seeds: Sequence[int] | None = None) -> dict[int, Path]:
    """Those of ``seeds``, by default all; ValueError where a run is missing or has no set yet."""
    for seed in runs if seeds is None else seeds:
        if seed not in runs:
            raise ValueError(f"{path} has no run of seed {seed}; it has {', '.join(map(str, runs))}")
        if not (runs[seed] / SYNTHETIC).exists():
            raise ValueError(f"{runs[seed]} is unfinished; continue it with fastdd distill --seeds ... --resume")
    return {seed: runs[seed] for seed in (runs if seeds is None else seeds)}
