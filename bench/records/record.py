"""A record: seed by seed, and what they say together."""

import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastdd
from fastdd.api import pick_device
from fastdd.bench.framework import machine
from fastdd.bench.records.targets import Target, Threshold
from fastdd.core import files
from fastdd.data.sets import DATASETS
from fastdd.evaluation.metrics import interval
from fastdd.methods import configure

RECORDS = Path(__file__).resolve().parent
RECORD, LOG = "record.json", "log.txt"
P = 0.01
FIGURES = ("accuracy", "deo_m", "deo_a")
STRUCTURES = ("fastdd", "published")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Plan:
    """What a record runs.

    Attributes:
        target: what is to be reached.
        name: of the record.
        settings: of the distillation, over the presets.
        structure: ``fastdd``, or ``published``: the loop of published code, at the published settings.
        nets: networks that check every seed.
        timed_steps: steps that are timed, in place of all; None: all are done, and the set is checked.
        device: auto, cpu or cuda.
    """

    target: Target
    name: str
    settings: Mapping[str, Any]
    structure: str = "fastdd"
    nets: int = 5
    timed_steps: int | None = None
    device: str = "auto"

    def check(self) -> None:
        """ValueError for a name that is none, or settings that are unknown, fixed, or not the structure's."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"a record's name is of small letters, digits and hyphens, such as fast-2, not {self.name!r}"
            )
        for setting in ("dataset", "seed", *self.target.fixed):
            if setting in self.settings:
                raise ValueError(f"{setting} is the target's or the seeds': leave --set {setting}=... out")
        if self.structure == "published" and self.settings:
            raise ValueError(
                f"the published structure is at the published settings: leave {', '.join(self.settings)} out"
            )
        if self.structure == "published" and self.target.method != "dm" and self.timed_steps is None:
            raise ValueError(f"the published structure of {self.target.method} is timed only: give --time-steps")
        self.config(0)

    def config(self, seed: int) -> dict[str, Any]:
        """All settings of a seed's run."""
        given = {**self.settings, **self.target.fixed, "seed": seed}
        return configure(dataset=self.target.dataset, **given).model_dump()

    def about(self) -> dict[str, Any]:
        """What tells this record from others: a record goes on only if all of it is the same."""
        settings = {name: value for name, value in self.config(0).items() if name not in ("seed", "dataset")}
        return {
            "target": json.loads(json.dumps(asdict(self.target))),
            "name": self.name,
            "structure": self.structure,
            "given": dict(self.settings),
            "settings": settings,
            "nets": self.nets,
            "timed_steps": self.timed_steps,
        }


def folder_of(plan: Plan, root: Path = RECORDS) -> Path:
    """The folder of a record: the one that is there, of whichever day, or a new one of today."""
    found = sorted(root.glob(f"????-??-??-{plan.target.name}-{plan.name}"))
    return found[-1] if found else root / f"{time.strftime('%Y-%m-%d', time.gmtime())}-{plan.target.name}-{plan.name}"


def run(plan: Plan, seeds: Sequence[int], data_root: Path | None = None, root: Path = RECORDS) -> dict[str, Any]:
    """Run the seeds that a record lacks, each as soon as it is there in ``record.json``; what was stopped goes on.

    Args:
        plan: what to run.
        seeds: which; those that are there are kept.
        data_root: of the data set's files.
        root: folder of records.

    Returns:
        The record.

    Raises:
        ValueError: a plan that can't be, or a folder that holds a record of other settings.
        RuntimeError: a seed's process has failed; its last line says why.
    """
    plan.check()
    folder, data = folder_of(plan, root), fastdd.data.load(plan.target.dataset, data_root)
    path = folder / RECORD
    record = read(path) if path.exists() else {**plan.about(), "seeds": []}
    for name, value in plan.about().items():
        if record[name] != value:
            raise ValueError(f"{folder.name} is a record of {name} {record[name]}, not {value}: choose another --name")
    folder.mkdir(parents=True, exist_ok=True)
    lock = files.hold(folder)
    try:
        with open(folder / LOG, "a", encoding="utf-8") as log:
            for seed in seeds:
                if any(row["seed"] == seed for row in record["seeds"]):
                    continue
                row = _seed(plan, seed, data, data_root, lambda line: _log(log, line))
                record["seeds"] = sorted([*record["seeds"], row], key=lambda row: row["seed"])
                files.write_text(path, json.dumps(record, indent=1) + "\n")
    finally:
        if lock is not None:
            lock.close()
            (folder / files.LOCK).unlink(missing_ok=True)
    return record


def _log(log: Any, line: str) -> None:
    log.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}\n")
    log.flush()
    print(line, flush=True)


def _seed(plan: Plan, seed: int, data: Any, data_root: Path | None, tell: Callable[[str], None]) -> dict[str, Any]:
    tell(f"seed {seed}: {plan.target.name}, {plan.structure}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as place:
        out, times = Path(place, "set.safetensors"), Path(place, "times.json")
        job = {
            "dataset": plan.target.dataset,
            "data_root": None if data_root is None else str(data_root),
            "settings": {**plan.settings, **plan.target.fixed, "seed": seed},
            "structure": plan.structure,
            "device": plan.device,
            "timed_steps": plan.timed_steps,
            "out": str(out),
            "times": str(times),
        }
        everything = _process(job, tell)
        row = {"seed": seed, "distillation": json.loads(times.read_text(encoding="utf-8"))}
        row |= {"everything": None, **_where(plan.device)}
        if plan.timed_steps is None:
            row |= {"everything": everything, **_checked(plan, seed, data, out)}
            figures = ", ".join(f"{name} {row[name]:.2f}" for name in FIGURES if row[name] is not None)
            tell(f"seed {seed}: {figures}; everything {everything['seconds']:.1f} s")
    return row


def _process(job: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, float]:
    """Run a seed's process; its seconds, of itself and what it starts, from before its start to after its end."""
    command = [sys.executable, "-m", "fastdd.bench.records.seed", json.dumps(job)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        last = ""
        for line in process.stdout:
            last = line.rstrip() or last
            if line.startswith(("step ", "a ")):
                tell(line.rstrip())
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(f"a seed's process ended with status {process.returncode}: {last}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu}


def _checked(plan: Plan, seed: int, data: Any, made: Path) -> dict[str, Any]:
    """Figures of a set on the test images, by networks of the data set's own kind, and what that took."""
    own = {name: value for name, value in asdict(DATASETS[plan.target.dataset].architecture).items() if value}
    began, cpu = time.perf_counter(), time.process_time()
    found = fastdd.evaluate(
        made, data, nets=plan.nets, epochs=plan.target.epochs, seed=seed, device=plan.device, **network(own)
    ).summary()
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    return {**{name: found[name] and found[name]["mean"] for name in FIGURES}, "evaluation": spent}


def network(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The network that checks: the data set's, with the widths that the ConvNet has where none is said."""
    return {"width": 128, "depth": 3, **architecture}


def _where(device: str) -> dict[str, Any]:
    about = machine.describe(pick_device(device))
    kept = ("git", "fastdd", "torch", "device", "driver", "threads", "simd_active", "keeps_freed_memory", "utc")
    return {"machine": {name: about[name] for name in kept}}


def read(path: Path) -> dict[str, Any]:
    """A ``record.json``; ValueError if it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"target", "name", "structure", "settings", "seeds"} <= found.keys():
            raise ValueError("it lacks parts")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no record: {error}") from None
    return found


def records(root: Path = RECORDS) -> list[tuple[str, dict[str, Any]]]:
    """All records and their folders: the published structure's, then the oldest first, and of a day the defaults'."""
    found = [(path.parent.name, read(path)) for path in root.glob(f"*/{RECORD}")]
    day = len("2026-01-02")
    return sorted(
        found, key=lambda one: (one[1]["structure"] != "published", one[0][:day], bool(one[1]["given"]), one[0])
    )


@dataclass(frozen=True)
class Verdict:
    """What seeds say of a threshold.

    Attributes:
        mean: of the figure, percent.
        half: half of its 95 % interval; None with one seed.
        p: of the one-sided t-test that the mean is no better than the threshold; None with one seed.
    """

    mean: float
    half: float | None
    p: float | None


def verdict(values: Iterable[float], threshold: Threshold) -> Verdict:
    """The one-sided t-test of a threshold.

    >>> found = verdict([94.9, 95.1, 95.0, 94.8, 95.2], Threshold("accuracy", "at least", 94.6))
    >>> round(found.mean, 2), round(found.half, 2), round(found.p, 4)
    (95.0, 0.2, 0.0024)
    """
    array = np.array([*values], dtype=np.float64)
    half = interval(float(array.std()), len(array))
    if half is None:
        return Verdict(float(array.mean()), None, None)
    better = float(array.mean()) - threshold.value
    better = better if threshold.side == "at least" else -better
    if not array.std():
        return Verdict(float(array.mean()), half, 0.0 if better > 0 else 1.0)
    from scipy.special import stdtr  # the distribution function of scipy.stats.t, whose import takes half a second

    t = better / (array.std(ddof=1) / math.sqrt(len(array)))
    return Verdict(float(array.mean()), half, float(stdtr(len(array) - 1, -t)))


def counts_for(record: Mapping[str, Any], target: Target) -> bool:
    """Whether a record is of what the target is of, checked alike: whatever figures it was meant to reach."""
    return all(record["target"][name] == getattr(target, name) for name in ("dataset", "epochs", *target.fixed))


def met(record: Mapping[str, Any], target: Target) -> bool | None:
    """Whether every threshold is met at p < 0.01; None where seeds were not checked, or there is one."""
    ps = []
    for threshold in target.thresholds:
        values = [row.get(threshold.figure) for row in record["seeds"]]
        if not values or None in values:
            return None
        ps.append(verdict(values, threshold).p)
    return None if None in ps else all(p < P for p in ps)
