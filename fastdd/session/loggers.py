"""Metrics for TensorBoard and Weights & Biases, as a folder's logs have them: every row once, whatever was resumed.

A series is written from its first row on at every start: what is in the folder's own logs (``metrics.jsonl``,
``evaluations.jsonl``) first. TensorBoard's files of earlier starts give way to the new one; what Weights & Biases has
already is left out.
"""

import importlib.util
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fastdd.core import files, ranks
from fastdd.core.text import one_of
from fastdd.session.callbacks import Callback
from fastdd.session.folder import EVALUATIONS, METRICS, read_log

if TYPE_CHECKING:
    from fastdd.session.run import Run

TENSORBOARD, WANDB = "tensorboard", "wandb"
WANDB_STATE = "wandb.json"
# Of Weights & Biases; a variable of the environment names another.
_PROJECT = "fastdd"
# Between two writes of what it has.
_STATE_SECONDS = 1.0


class Series(Protocol):
    """Where rows of numbers go."""

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """A row of a log: its numbers, by their tags, after ``step``."""

    def close(self) -> None:
        """No more rows come."""


class TensorBoard:
    """An event file in ``folder/tensorboard``, in place of those of earlier starts."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        place = folder / TENSORBOARD
        old = sorted(place.glob("events.out.tfevents.*")) if place.is_dir() else []
        # A TensorBoard that shows the folder now forgets what it has read from step 0 on.
        self._writer = SummaryWriter(str(place), purge_step=0)
        for path in old:
            path.unlink()

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, which a resumed one goes on with; ``folder/wandb.json`` knows it, and what it has."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        import wandb

        self._state = folder / WANDB_STATE
        state = {"id": uuid.uuid4().hex[:12], "steps": {}}
        if self._state.exists():
            state = json.loads(self._state.read_text(encoding="utf-8"))
        self._id, self._had, self._steps = state["id"], dict(state["steps"]), dict(state["steps"])
        folder.mkdir(parents=True, exist_ok=True)
        self._save()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=self._id,
            resume="allow",
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        if step > self._had.get(kind, -1):
            self._run.log(dict(values), step=step)
            self._steps[kind] = max(step, self._steps.get(kind, -1))
            if time.monotonic() - self._saved_at > _STATE_SECONDS:
                self._save()

    def close(self) -> None:
        self._run.finish()
        self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        content = json.dumps({"id": self._id, "steps": self._steps})
        files.write_text(self._state, content + "\n")


LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], Series]] = {TENSORBOARD: TensorBoard, WANDB: Wandb}


def check_loggers(names: Sequence[str]) -> None:
    """Before any work: that these are loggers, and what they need is here.

    Raises:
        ValueError: no such logger, or one that is named twice, or Weights & Biases without a key.
        ImportError: its package is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise ValueError(f"unknown logger {name!r}; {one_of(name, LOGGERS)}")
        if names.count(name) > 1:
            raise ValueError(f"log {name} is given twice")
        if importlib.util.find_spec(name) is None:
            cure = f"pip install 'fastdd[{name}]'"
            raise ImportError(f"log {name} needs the package {name}, which is not installed: {cure}")
    if WANDB in names and os.environ.get("WANDB_MODE") not in ("offline", "disabled", "dryrun"):
        import wandb

        if wandb.api.api_key is None:
            raise ValueError(
                "log wandb has no key to log in with: run wandb login, set WANDB_API_KEY, or set WANDB_MODE=offline "
                "and send the run later with wandb sync"
            )


def open_series(names: Sequence[str], folder: str | os.PathLike, config: Mapping[str, Any]) -> list[Series]:
    """The series of these loggers in a folder; the rows that its logs have are to be written first."""
    return [LOGGERS[name](Path(folder), config) for name in names]


def numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row by their tags; of a figure with a mean, that.

    >>> numbers({"loss": 1.5, "wa": {"mean": 40.0, "std": 2.0}, "arch": "ConvNet", "deo_m": {"mean": None}}, "net/")
    {'net/loss': 1.5, 'net/wa': 40.0}
    """
    found = {}
    for name, value in row.items():
        value = value.get("mean") if isinstance(value, Mapping) else value
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = value
    return found


# Of an evaluation on the way, numbers that are figures.
_FIGURES = ("accuracy", "deo_m", "deo_a", "wa", "ba")


class RunLog(Callback):
    """The losses and evaluations of a run for these loggers (:data:`LOGGERS`); a run that writes no folder has none.

    The loss of a step is at its number, from 0, as in ``metrics.jsonl``; the figures of an evaluation on the way at the
    number of steps done by then.

    >>> from fastdd.session import RunLog
    >>> RunLog("tensorboard").agreement
    ('tensorboard',)
    """

    def __init__(self, *names: str):
        check_loggers(names)
        self.agreement = names
        self._series: list[Series] = []

    def begins(self, run: "Run") -> None:
        if run.out is None or ranks.rank() > 0:
            return
        self._series = open_series(self.agreement, run.out, run.config.model_dump())
        for kind, step, values in _logged(run):
            self._write(kind, step, values)

    def losses(self, run: "Run", first: int, values: list[float]) -> None:
        for step, value in enumerate(values, first):
            self._write(METRICS, step, {"loss": value})

    def evaluated(self, run: "Run", row: Mapping[str, Any]) -> None:
        self._write(EVALUATIONS, row["iteration"] * run.steps_per_iteration, _figures(row))

    def ends(self, run: "Run") -> None:
        for series in self._series:
            series.close()
        self._series = []

    def _write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        for series in self._series:
            series.write(kind, step, values)


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    return numbers({name: row[name] for name in _FIGURES}, "evaluation/")


def _logged(run: "Run") -> list[tuple[str, int, dict[str, float]]]:
    """What the folder's logs have, in order."""
    paths = (run.out / METRICS, run.out / EVALUATIONS)
    losses, evaluations = (read_log(path) if path.exists() else [] for path in paths)
    rows = [(row["iteration"] * run.steps_per_iteration, EVALUATIONS, _figures(row)) for row in evaluations]
    rows += [(row["step"], METRICS, {"loss": row["loss"]}) for row in losses]
    return [(kind, step, values) for step, kind, values in sorted(rows, key=lambda row: row[:2])]


def write_rows(
    names: Sequence[str],
    folder: str | os.PathLike,
    config: Mapping[str, Any],
    rows: Iterable[tuple[int, Mapping[str, float]]],
) -> None:
    """All rows of a series that is known as a whole, by their steps, rising; on rank 0."""
    if not names or ranks.rank() > 0:
        return
    opened = open_series(names, folder, config)
    for step, values in rows:
        for series in opened:
            series.write("rows", step, values)
    for series in opened:
        series.close()
