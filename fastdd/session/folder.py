"""A run's folder: configuration, metrics, checkpoints.

Every write is whole. A kill at any moment loses no more than the steps since the last checkpoint, and those are the
same when they are done again.
"""

import errno
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from fastdd.core import bounds, files, plugins, reading
from fastdd.core.files import GROUPS, INITIAL, WEIGHTS, hold
from fastdd.core.space import bytes_in, check_room
from fastdd.core.text import shown
from fastdd.methods import Settings, method, stored

# In config.yaml, beside the run's settings: of what it ran on, and where that lay if it is a packed store.
# And the users' parts that it uses (fastdd.core.plugins).
DATA_DIGEST, STORE, PLUGINS = "data_digest", "store", "plugins"
CONFIG, METRICS, CHECKPOINT, PREVIOUS = "config.yaml", "metrics.jsonl", "checkpoint.pt", "checkpoint.previous.pt"
EVALUATIONS = "evaluations.jsonl"
# What every row of a log has.
_FIELDS = {
    METRICS: {"step": reading.is_count, "loss": reading.is_number},
    EVALUATIONS: {"iteration": reading.is_count},
}
SYNTHETIC = "synthetic.safetensors"
_CHECKPOINT_SCHEMA = 2


@dataclass
class State:
    """What a run is made of after ``step`` steps.

    Attributes:
        step: steps done.
        tensors: what the steps to come depend on (:meth:`fastdd.methods.Method.state`).
        seconds: time spent in the loop so far.
    """

    step: int
    tensors: dict[str, Tensor]
    seconds: float

    def digest(self) -> str:
        """SHA-256 over the step and the bits of all tensors."""
        hash_ = hashlib.sha256(str(self.step).encode())
        for name, tensor in sorted(self.tensors.items()):
            hash_.update(name.encode())
            hash_.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return hash_.hexdigest()


def check_out(path: str | os.PathLike, resume: bool, config: Settings | None = None) -> None:
    """ValueError if the folder ``path`` holds a run that is not to be continued, or files of something else.

    With ``config`` also if the run there has other settings; it may have done fewer iterations, or more.
    The weights, groups and first images that a run is about to use may be there before it.
    """
    path = Path(path)
    if (path / CONFIG).exists():
        if not resume:
            raise ValueError(f"{path} already holds a run; continue it with --resume or choose another --out")
        if config is not None:
            _check_settings(path, config)
    elif path.is_dir():
        known = (files.LOCK, WEIGHTS, GROUPS, INITIAL)
        stray = files.entries(path, known)
        if stray:
            raise ValueError(f"{path} is not empty and holds no run (it has {stray[0]!r}); give an empty folder")


def _check_settings(path: Path, config: Settings) -> dict[str, Any]:
    """What the folder says of its run; ValueError unless that has these settings: iterations aside, where more of them
    go on from fewer (:attr:`fastdd.methods.Settings.can_be_extended`)."""
    header = read_config(path / CONFIG)
    found = stored(header["run"])
    aside = set() if method(config.method).by_class or not config.can_be_extended else {"iterations"}
    for name, value in config.model_dump(exclude=aside).items():
        other = getattr(found, name, None)  # None: of another method
        if other != value:
            raise ValueError(f"{path} holds a run with {name}={other}, not {value}; choose another --out")
    return header


def store_of_run(path: str | os.PathLike) -> Path | None:
    """The packed store that the run of a folder, or of the set in it, was made from; None where none is recorded.

    Warns:
        RuntimeWarning: a configuration that can't be read, and might name one.
    """
    path = Path(path)
    folder = path.parent if path.name == SYNTHETIC else path
    if not (folder / CONFIG).is_file():
        return None
    try:
        header = bounds.load_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    except (*files.DAMAGE, yaml.YAMLError) as error:
        warnings.warn(f"{folder / CONFIG} is damaged: {files.reason(error)}", RuntimeWarning, stacklevel=2)
        return None
    store = header.get(STORE) if isinstance(header, dict) else None
    return Path(store) if isinstance(store, str) else None


def read_config(path: Path) -> dict[str, Any]:
    """What a run's ``config.yaml`` says, with its ``run`` checked; ValueError, naming the file, where it is none."""
    written = reading.text(path)
    try:
        with reading.damage_of(path, "is not a run's configuration", ValueError):
            header = bounds.load_yaml(written)
            settings = header["run"]
            plugins.recall(header.get(PLUGINS))
            stored(settings)
            header["data_digest"]
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a run's configuration: {error}") from None
    return header


class RunFolder:
    """Opens, or creates, the folder of one run, and holds it for this process.

    Args:
        path: the folder.
        config: what is about to run.
        data_digest: digest of the data set that it runs on.
        store: the packed store that the data set is; None: it is none.
        resume: continue the run that is there, if any.
        size: bytes that one checkpoint takes, to tell a full disk before the work starts.

    Raises:
        ValueError: the folder holds another run, or a run and ``resume`` is False, or files of something else.
        OSError: it can't be created or written, the disk is full, or another process is running in it.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        config: Settings,
        data_digest: str,
        *,
        resume: bool,
        size: int,
        store: Path | None = None,
    ):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.WriteError(
                error.errno, f"cannot create the run folder {self.path}: {error.strerror}"
            ) from error
        self._lock = hold(self.path)
        check_out(self.path, resume)
        files.remove_partials(self.path)
        if (self.path / CONFIG).exists():
            self._check_same(config, data_digest)
        # Two checkpoints, a third while it is written, and the synthetic set; a resumed run has some of them already.
        check_room(self.path, 4 * size - bytes_in(self.path), "the run")
        self._header: dict[str, Any] = {"run": config.model_dump(), DATA_DIGEST: data_digest}
        if store is not None:
            self._header[STORE] = str(store)
        if records := plugins.used(self._header["run"]):
            self._header[PLUGINS] = records

    def describe(self) -> None:
        """Write the configuration, once it is known that the run can go on, as its iterations may be others."""
        files.write_text(self.path / CONFIG, yaml.safe_dump(self._header, sort_keys=False))

    def _check_same(self, config: Settings, data_digest: str) -> None:
        header = _check_settings(self.path, config)
        plugins.check_same(self.path, header.get(PLUGINS), config.model_dump())
        if header[DATA_DIGEST] != data_digest:
            raise ValueError(
                f"{self.path} holds a run on other data of the name {header['run']['dataset']!r}, or other weights, "
                "groups or first images, or networks trained otherwise"
            )

    def save(self, state: State) -> None:
        """Write a checkpoint; the one before it stays as ``checkpoint.previous.pt``."""
        content = {
            "schema": _CHECKPOINT_SCHEMA,
            "step": state.step,
            "tensors": {name: tensor.detach().cpu() for name, tensor in state.tensors.items()},
            "seconds": state.seconds,
            "digest": state.digest(),
        }
        if (self.path / CHECKPOINT).exists():
            os.replace(self.path / CHECKPOINT, self.path / PREVIOUS)
        files.write_atomic(self.path / CHECKPOINT, lambda file: torch.save(content, file))

    def load(self) -> State | None:
        """The newest whole checkpoint; None if there is none yet.

        A damaged one is removed with a warning, and the one before it is used.

        Raises:
            RuntimeError: all checkpoints there are damaged.
        """
        damaged = []
        for name in (CHECKPOINT, PREVIOUS):
            path = self.path / name
            if not path.exists():
                continue
            try:
                if not path.is_file():
                    raise ValueError("it is not a regular file")
                content = torch.load(path, weights_only=True, map_location="cpu")
                if content["schema"] != _CHECKPOINT_SCHEMA:
                    raise ValueError(f"it has schema {content['schema']}, this version reads {_CHECKPOINT_SCHEMA}")
                state = State(content["step"], content["tensors"], content["seconds"])
                if not all(map(bounds.is_plain, state.tensors.values())):
                    raise ValueError("it has tensors that are not plain values")
                if state.digest() != content["digest"]:
                    raise ValueError("its digest does not match its content")
                _check_state(state)
            except Exception as error:  # torch.load raises whatever its parser meets
                damaged.append(path)
                reason = files.reason(error)[:200]
                warnings.warn(f"{path} is damaged and is not used: {reason}", RuntimeWarning, stacklevel=2)
                continue
            for bad in damaged:
                bad.unlink()
            return state
        if damaged:
            raise RuntimeError(f"all checkpoints in {self.path} are damaged; start again in another --out")
        return None

    def keep(self, log: str, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Drop the rows of a log that are not ``wanted``, as they are about to be made again; those that stay."""
        path = self.path / log
        if not path.exists():
            return []
        kept = [row for row in read_log(path) if wanted(row)]
        files.write_text(path, _lines(kept))
        return kept

    def log(self, log: str, rows: list[dict[str, Any]]) -> None:
        """Append to a log, one JSON object a line: all of them, or none if the disk is full."""
        text = _lines(rows).encode()
        path = self.path / log
        try:
            with open(path, "ab", buffering=0) as file:
                before = file.tell()
                try:
                    if file.write(text) != len(text):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    file.truncate(before)
                    raise
        except OSError as error:
            raise files.write_error(path, error) from error


def _check_state(state: State) -> None:
    """ValueError unless a state, whatever its digest, is one that a run can have."""
    if not reading.is_count(state.step) or not reading.is_number(state.seconds):
        raise ValueError(f"its step is {shown(state.step)}, after {shown(state.seconds)} seconds")
    for name, tensor in state.tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"its {name} are not finite")


def read_log(
    path: str | os.PathLike, fields: Mapping[str, Callable[[Any], bool]] | None = None
) -> list[dict[str, Any]]:
    """The rows of a log; a last one that is not whole, as its run is writing it or was killed, is left out.

    Args:
        path: of the log.
        fields: what every row has; None: what a run's log of this name has.

    Raises:
        ValueError: a line that is no row of this log.
    """
    rows, path = [], Path(path)
    fields = _FIELDS[path.name] if fields is None else fields
    for number, line in enumerate(reading.content(path).splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            row = reading.parse_json(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not all(fits(row.get(name)) for name, fits in fields.items()):
            raise ValueError(f"{path} is damaged: line {number} is no row of it")
        rows.append(row)
    return rows


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
