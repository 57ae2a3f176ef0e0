"""The rows of a study in a folder: what is there is not done again."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdd import api, report
from fastdd.core import files, ranks
from fastdd.data import Dataset

ROWS, PICTURE = "study.json", "study.png"


@dataclass(frozen=True)
class Work:
    """How the sets of a study are made and tested.

    Attributes:
        distillation: arguments of :func:`fastdd.distill`, among them ``ipc`` and ``seed``.
        evaluation: arguments of :func:`fastdd.evaluate`, among them ``seed``.
        distill, evaluate: what does it; with progress bars on the command line.
    """

    distillation: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    distill: Callable[..., Any] = api.distill
    evaluate: Callable[..., Any] = api.evaluate

    def figures(self, data: Dataset, debias: str, weights: np.ndarray | None = None) -> dict[str, Any]:
        """Distil, train networks, test: ``accuracy`` and ``deo_a``, percent, each its mean and more."""
        synthetic = self.distill(data, debias=debias, weights=weights, **self.distillation)
        summary = self.evaluate(synthetic, data, **self.evaluation).summary()
        return {name: summary[name] for name in ("accuracy", "deo_a")}


class KeptRows:
    """Rows, each with the key that tells it from others, in ``study.json``; every new one is written at once.

    The folder is held for this process until the object, a context manager, is left.

    Args:
        folder: made if it is not there; None keeps rows in memory.
        study: name of the study.
        settings: what all rows depend on, JSON-able.

    Attributes:
        rows: those that are there, in the order of the work.

    Raises:
        ValueError: the folder has rows of another study, or of other settings; or several ranks.
        OSError: it can't be written.
    """

    def __init__(self, folder: Path | None, study: str, settings: Mapping[str, Any]):
        if ranks.world() > 1:
            raise ValueError(f"a study is run by one process, not by torchrun's {ranks.world()} ranks")
        self._path = None if folder is None else folder / ROWS
        self._about = {"study": study, "settings": dict(settings)}
        self.rows: list[dict[str, Any]] = []
        self._seconds, self._lock = 0.0, None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = files.hold(folder)
        try:
            self._read(study)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "KeptRows":
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def _read(self, study: str) -> None:
        files.remove_partials(self._path.parent)
        if not self._path.exists():
            files.check_writable(self._path)
            return
        content = report.read_json(self._path)
        meta = content["meta"]
        found = meta.get("settings") if meta.get("study") == study else None
        if not isinstance(found, dict):
            raise ValueError(f"{self._path} is of the study {meta.get('study')!r}, not {study}; choose another --out")
        for name, value in self._about["settings"].items():
            if found.get(name) != value:
                raise ValueError(
                    f"{self._path} is of a study with {name}={found.get(name)}, not {value}; choose another --out"
                )
        self.rows, self._seconds = content["rows"], float(meta.get("seconds", 0.0))

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The row of a key; None where it is not there."""
        return next((row for row in self.rows if all(row.get(name) == value for name, value in key.items())), None)

    def get(self, key: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The row of a key: the one that is there, or a new one of what ``make`` returns."""
        found = self.find(key)
        if found is not None:
            return found
        began = time.perf_counter()
        self.rows.append({**key, **make()})
        self._seconds += time.perf_counter() - began
        if self._path is not None:
            report.write_json(self._path, report.document(self.rows, **self._about, seconds=self._seconds))
        return self.rows[-1]
