"""What a run left in its folder, finished or not, read for a report."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fastdd.core import bounds, reading
from fastdd.data import SyntheticSet, built_with, registered_name
from fastdd.evaluation.audit import Audit
from fastdd.methods import stored
from fastdd.report.audit import AUDIT, read_audit
from fastdd.report.ranking import RANKING, read_ranking
from fastdd.report.results import CURVE_METRICS, RESULT, check_row, read_results
from fastdd.report.training import check_history
from fastdd.session import folder as run_folder
from fastdd.session import snapshot_files
from fastdd.session import training_folder as network_folder
from fastdd.session.trained import NETWORK


@dataclass(frozen=True)
class Record:
    """A run, a synthetic set by itself, or the training of a network.

    Attributes:
        path: the run's folder, or the synthetic set's file.
        synthetic: the synthetic set; None while the run is unfinished.
        config: what was run; empty for a file.
        steps: int, steps done.
        total: int, steps asked for; None for a file.
        losses: (step, loss) of every step that was logged.
        evaluations: those on the way, by iteration (:func:`fastdd.distill`, ``eval_every``).
        snapshots: (iteration, file) of the sets that were kept on the way (:func:`fastdd.distill`, ``snapshots``).
        rows: results of evaluations, as :func:`fastdd.report.result_row` makes them; the oldest first.
        meta: of the last evaluation: versions, machine.
        audit: of the set, where there is one and it is of this set.
        ranking: the last scores of this set (:func:`fastdd.report.ranking_row`), where there are some.
        history: of the training of a network, a row an epoch
            (:attr:`fastdd.session.trained.TrainedNetwork.history`); None where it is none. ``steps`` are
            then its epochs, ``total`` is None until there is a network, and there is no synthetic set.
        title: what the user calls it; empty where nothing was said.
    """

    path: Path
    synthetic: SyntheticSet | None
    config: dict[str, Any]
    steps: int
    total: int | None
    losses: list[tuple[int, float]]
    evaluations: list[dict[str, Any]]
    snapshots: list[tuple[int, Path]]
    rows: list[dict[str, Any]]
    meta: dict[str, Any]
    audit: Audit | None = None
    ranking: dict[str, Any] | None = None
    history: list[dict[str, Any]] | None = field(default=None)
    title: str = ""

    @property
    def kind(self) -> str:
        """Method and debias mode; recipe and use of a training."""
        about = self.config or (self.synthetic.metadata if self.synthetic else {})
        if self.history is not None:
            use = about["use"]
            return f"{about['training']}{'' if use == 'none' else f' with {use}'}"
        method, debias = about.get("method", "set"), about.get("debias", "none")
        return method if debias == "none" else f"{method}+{debias}"

    @property
    def name(self) -> str:
        """Method, debias mode, data set and IPC, as far as they are known; recipe and data set of a training."""
        about = self.config or (self.synthetic.metadata if self.synthetic else {})
        rest = [str(about["dataset"])] if about.get("dataset") else []
        rest += [f"IPC {about['ipc']}"] if about.get("ipc") else []
        return ", ".join([self.kind, *rest])

    @property
    def dataset(self) -> str | None:
        """The data set's name, where it is known."""
        return (self.config or (self.synthetic.metadata if self.synthetic else {})).get("dataset")

    @property
    def rows_of_set(self) -> list[dict[str, Any]]:
        """The results that are of the set that is there now, not of one with fewer iterations before it."""
        own = None if self.synthetic is None else self.synthetic.digest()
        return [row for row in self.rows if row.get("set_digest", own) == own]

    def data_options(self, dataset: str) -> dict[str, Any]:
        """The options that the data set was built with; none while the run is unfinished."""
        if self.synthetic is None or dataset not in (self.dataset, registered_name(self.synthetic.metadata)):
            return {}
        return built_with(self.synthetic.metadata, dataset)

    @property
    def unfinished(self) -> str:
        """What is missing, in a few words; empty for a finished run."""
        if self.history is not None:
            return "" if self.total is not None else f"unfinished: {self.steps:,} epochs are done"
        if self.synthetic is not None:
            return ""
        of = "" if self.total is None else f" of {self.total:,}"
        return f"unfinished: {self.steps:,}{of} steps are logged"


def read_record(path: str | os.PathLike) -> Record:
    """Read a run's folder, a synthetic set's file, or the folder of a network's training.

    Raises:
        ValueError: there is no run and no synthetic set; a file of it is not what it should be.
        FileNotFoundError: there is nothing.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_file():
        return Record(path, SyntheticSet.load(path), {}, 0, None, [], [], [], [], {})
    made, configured = path / run_folder.SYNTHETIC, path / run_folder.CONFIG
    if not made.exists() and not configured.exists():
        raise ValueError(f"{path} holds no run and no synthetic set")
    if configured.exists() and _is_training(configured):
        return _read_training(path)
    config, total = _configuration(configured) if configured.exists() else ({}, None)
    logged, evaluated = (
        run_folder.read_log(log) if log.exists() else []
        for log in (path / run_folder.METRICS, path / run_folder.EVALUATIONS)
    )
    for row in evaluated:
        check_row(row, ("arch", "nets", "epochs", "tested_on"), CURVE_METRICS, path / run_folder.EVALUATIONS)
    losses = [(entry["step"], entry["loss"]) for entry in logged]
    found = _results(path / RESULT)
    synthetic = SyntheticSet.load(made) if made.exists() else None
    audited, ranked = (synthetic is not None and (path / name).exists() for name in (AUDIT, RANKING))
    return Record(
        path,
        synthetic,
        config,
        losses[-1][0] + 1 if losses else 0,
        total,
        losses,
        evaluated,
        snapshot_files(path),
        found["rows"],
        found["meta"],
        read_audit(path / AUDIT, synthetic) if audited else None,
        read_ranking(path / RANKING, synthetic) if ranked else None,
    )


def _is_training(path: Path) -> bool:
    """Whether a configuration is of a network's training; one that can't be read is told by who reads it then."""
    try:
        header = bounds.load_yaml(reading.text(path))
    except (ValueError, yaml.YAMLError):
        return False
    return isinstance(header, dict) and "train" in header


def _read_training(path: Path) -> Record:
    settings, _ = network_folder.read_config(path)
    log = path / network_folder.METRICS
    history = run_folder.read_log(log, network_folder.FIELDS) if log.exists() else []
    check_history(history, log)
    found = _results(path / RESULT)
    return Record(
        path,
        None,
        settings.model_dump(),
        len(history),
        len(history) if (path / NETWORK).exists() else None,
        [],
        [],
        [],
        found["rows"],
        found["meta"],
        history=history,
    )


def _configuration(path: Path) -> tuple[dict[str, Any], int | None]:
    """What was run, and its steps; None of a method that has none."""
    config = run_folder.read_config(path)["run"]
    return config, getattr(stored(config), "steps", None)


def _results(path: Path) -> dict[str, Any]:
    return read_results(path) if path.exists() else {"rows": [], "meta": {}}
