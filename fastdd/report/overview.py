"""Runs side by side: what they are, how far they are, what they reached, and in which settings they differ."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fastdd.core import bounds, files, reading
from fastdd.core.text import shown
from fastdd.data import SyntheticSet
from fastdd.methods import stored
from fastdd.report.results import RESULT, read_results, set_name
from fastdd.session import folder as run_folder
from fastdd.session import training_folder as network_folder
from fastdd.session.folder import CONFIG, METRICS, SYNTHETIC
from fastdd.session.loggers import WANDB
from fastdd.session.trained import NETWORK

if TYPE_CHECKING:
    from rich.table import Table

# How deep below a folder runs are looked for: runs/NAME-seeds/seed-0, and recipes' one deeper.
_DEPTH = 4
_TAIL = 1 << 14
RUNNING, FINISHED, INTERRUPTED, DAMAGED = "running", "finished", "interrupted", "damaged"


@dataclass(frozen=True)
class RunState:
    """A run, or the training of a network, as its folder tells.

    Attributes:
        path: its folder.
        kind: distillation or training.
        state: running (a process holds the folder), finished, interrupted (neither: ``--resume`` goes on), or damaged.
        settings: all of them, with ``data_digest`` and ``store``; empty where damaged.
        done, total: iterations, or epochs of a training; None where not known.
        metrics: the last row of ``metrics.jsonl``; None before the first.
        row: of the last evaluation of the set that is there now (:func:`fastdd.report.result_row`); None before any.
        problem: what is damaged.
    """

    path: Path
    kind: str
    state: str
    settings: dict[str, Any]
    done: int | None = None
    total: int | None = None
    metrics: dict[str, Any] | None = None
    row: dict[str, Any] | None = None
    problem: str = field(default="")

    @property
    def name(self) -> str:
        """Method and debias mode, or the recipe of a training."""
        if self.kind == "training":
            use = self.settings.get("use", "none")
            return f"{self.settings.get('training', '?')}{'' if use == 'none' else f', {use}'}"
        return set_name({"debias": "none", "method": "?", **self.settings})


def find_runs(folder: str | os.PathLike) -> list[Path]:
    """Folders of runs in ``folder``, or it itself, in order of their names; links are not followed.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    found = []
    for place, folders, names in os.walk(folder):
        if CONFIG in names:
            found.append(Path(place))
            folders.clear()
        elif len(Path(place).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != WANDB)
    return found


def run_state(path: str | os.PathLike) -> RunState:
    """The state of the run in a folder that has a ``config.yaml``; nothing is raised for damaged files, but told."""
    path, settings, kind = Path(path), {}, "distillation"
    try:
        with reading.damage_of(path / CONFIG, "is not a run's configuration", ValueError):
            header = bounds.load_yaml(reading.text(path / CONFIG))
            kind = "training" if "train" in header else kind
        return _training(path) if kind == "training" else _distillation(path)
    except (*files.DAMAGE, RuntimeError, yaml.YAMLError) as error:
        return RunState(path, kind, DAMAGED, settings, problem=" ".join(str(error).split()))


def _distillation(path: Path) -> RunState:
    header = run_folder.read_config(path / CONFIG)
    config = stored(header["run"])
    settings = {**config.model_dump(), "data_digest": header["data_digest"], "store": header.get("store")}
    last = _last_row(path / METRICS)
    steps = 0 if last is None else last["step"] + 1
    made = path / SYNTHETIC
    each = config.steps // config.iterations
    finished = made.exists() and steps in (0, config.steps)  # longer ones have a set of fewer iterations until then
    done = config.iterations if finished else steps // each
    return RunState(
        path,
        "distillation",
        _state(path, finished),
        settings,
        done,
        config.iterations,
        last,
        _evaluated(path, made) if made.exists() else None,
    )


def _training(path: Path) -> RunState:
    config, header = network_folder.read_config(path)
    settings = {**config.model_dump(), "inputs": header["inputs"]}
    last, finished = _last_row(path / METRICS), (path / NETWORK).exists()
    rows = read_results(path / RESULT)["rows"] if finished and (path / RESULT).exists() else []
    done = 0 if last is None else last["epoch"] + 1
    return RunState(
        path,
        "training",
        _state(path, finished),
        settings,
        config.epochs if finished else done,
        config.epochs,
        last,
        rows[-1] if rows else None,
    )


def _state(path: Path, finished: bool) -> str:
    if files.is_held(path):
        return RUNNING
    return FINISHED if finished else INTERRUPTED


def _last_row(path: Path) -> dict[str, Any] | None:
    """The last whole line of a log, without those before it."""
    if not path.exists():
        return None
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        lines = file.read().rpartition(b"\n")[0].splitlines()
    if not lines:
        return None
    with reading.damage_of(path, kind=ValueError):
        row = reading.parse_json(lines[-1])
        if not isinstance(row, dict) or not reading.is_count(row.get("step", row.get("epoch"))):
            raise ValueError(f"its last line is {shown(row)}, and no row of it")
    return row


def _evaluated(path: Path, made: Path) -> dict[str, Any] | None:
    """The last result that is of the set that is there."""
    rows = read_results(path / RESULT)["rows"] if (path / RESULT).exists() else []
    if len({row.get("set_digest") for row in rows} - {None}) > 0:
        own = SyntheticSet.load(made).digest()
        rows = [row for row in rows if row.get("set_digest", own) == own]
    return rows[-1] if rows else None


def overview_rows(states: Sequence[RunState]) -> list[dict[str, Any]]:
    """A JSON-able row a run: path, kind, state, method, debias, dataset, ipc, done, total, metrics, accuracy, wa,
    settings, problem."""
    rows = []
    for one in states:
        about = {name: one.settings.get(name) for name in ("method", "debias", "training", "dataset", "ipc", "seed")}
        figures = {name: None if one.row is None else one.row[name] for name in ("accuracy", "wa")}
        rows.append(
            {
                "run": str(one.path),
                "kind": one.kind,
                "state": one.state,
                **about,
                **{"done": one.done, "total": one.total, "metrics": one.metrics},
                **figures,
                "settings": one.settings,
                "problem": one.problem,
            }
        )
    return json.loads(json.dumps(rows, default=str))


def overview_table(states: Sequence[RunState], base: Path | None = None) -> "Table":
    """Runs as a rich table; their names below ``base``."""
    from rich.table import Table

    result = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
    for name in ("run", "state", "method", "data set"):
        result.add_column(name, no_wrap=name == "state", overflow="fold")
    for name in ("IPC", "seed", "done", "loss", "accuracy", "WA"):
        result.add_column(name, justify="right", no_wrap=True)
    for one in states:
        settings = one.settings
        done = "-" if one.total is None else f"{one.done:,}/{one.total:,}"
        loss = None if one.metrics is None else one.metrics.get("loss")
        result.add_row(
            run_name(one.path, base),
            one.state,
            one.name if settings else one.problem,
            str(settings.get("dataset", "-")),
            str(settings.get("ipc", "-")),
            str(settings.get("seed", "-")),
            done,
            "-" if loss is None else f"{loss:.4g}",
            _figure(one.row, "accuracy"),
            _figure(one.row, "wa"),
        )
    return result


def run_name(path: Path, base: Path | None = None) -> str:
    """The path below ``base``, where it is below it."""
    if base is not None and path != base and path.is_relative_to(base):
        return str(path.relative_to(base))
    return str(path)


def _figure(row: Mapping[str, Any] | None, name: str) -> str:
    if row is None or row[name]["mean"] is None:
        return "-"
    return f"{row[name]['mean']:.1f}" + (f" ± {row[name]['std']:.1f}" if row["nets"] > 1 else "")


def differing(states: Sequence[RunState]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, with the value of each; - where a run has none."""
    known = [one.settings for one in states]
    names = dict.fromkeys(name for settings in known for name in settings)
    values = {name: [settings.get(name, "-") for settings in known] for name in names}
    return {name: of for name, of in values.items() if any(value != of[0] for value in of)}


def difference_table(states: Sequence[RunState], base: Path | None = None) -> "Table":
    """:func:`differing` as a rich table, a setting a line and a run a column."""
    from rich.table import Table

    result = Table(title="what differs", title_justify="left", box=None, header_style="bold", padding=(0, 1))
    result.add_column("setting", no_wrap=True)
    for one in states:
        result.add_column(run_name(one.path, base), justify="right", overflow="fold")
    for name, values in differing(states).items():
        result.add_row(name, *(_value(name, value) for value in values))
    return result


def _value(name: str, value: Any) -> str:
    if value is None:
        return "none"
    return str(value)[:12] if name in ("data_digest", "inputs") else str(value)
