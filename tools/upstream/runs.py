"""Running a script of a recipe: in a copy of its checkout, as its own and on fastdd's functions."""

import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipes import Recipe, Script

START = Path(__file__).resolve().parent / "start.py"
# Pictures and papers in checkouts.
_LARGEST_FILE = 1 << 20
_TAIL = 400
# What a run is of: options of ``fastdd run`` and FASTDD_COMPAT.
KINDS = {"off": ("", "0"), "legacy": ("--rng legacy", ""), "fast": ("--rng fast", ""), "profile": ("--rng fast", "")}


@dataclass
class Ran:
    """A run that came to an end, its own or another.

    Args:
        folder: copy of the checkout, with what the script wrote.
        status: exit code; None after the limit.
        cpu, wall: seconds since the script's start, without the imports of torch and fastdd.
        rows: what was replaced (``fastdd run --json``).
        profile: (function, share).
        output: the script's.
        errors: stderr.
    """

    folder: Path
    status: int | None
    cpu: float
    wall: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    profile: list[tuple[str, float]] = field(default_factory=list)
    output: str = ""
    errors: str = ""

    @property
    def why(self) -> str:
        """Why it did not run to its end; empty where it did."""
        if self.status == 0:
            return ""
        if self.status is None:
            return f"stopped after {self.wall:.0f} s"
        lines = [line for line in self.errors.splitlines() if line.strip() and not line.startswith(("fastdd:", " "))]
        said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "")
        return f"exit code {self.status}: {said[:160]}"


@dataclass(frozen=True)
class Place:
    """Where scripts are run, and with what.

    Args:
        work: scratch folder.
        data: the folder of data, in torchvision's layout, for a number of training images a class (0: the usual).
        seed: of all generators.
        threads: of a run.
        seconds: limit of a run.
    """

    work: Path
    data: Callable[[int], Path]
    seed: int = 0
    threads: int = 1
    seconds: int = 600


def missing(recipe: Recipe) -> list[str]:
    """Packages that have to be installed first."""
    return [name for name in recipe.needs if importlib.util.find_spec(name) is None]


def run(recipe: Recipe, name: str, kind: str, turn: int, checkout: Path, place: Place) -> Ran:
    """A run of a script."""
    script = recipe.scripts[name]
    folder = place.work / recipe.name / name / f"{kind}-{turn}"
    shutil.rmtree(folder, ignore_errors=True)
    _copy(checkout, folder)
    _lay(script, folder, place)
    for earlier, patterns in script.takes.items():
        _take(place.work / recipe.name / earlier, folder, patterns)
    beside = folder.parent / f"{kind}-{turn}.files"
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "stand-ins").mkdir(parents=True)
    for module, text in recipe.stand_ins.items():
        if importlib.util.find_spec(module) is None:
            (beside / "stand-ins" / f"{module}.py").write_text(text)
    record, rows = beside / "record.json", beside / "rows.json"
    options = shlex.split(f"{KINDS[kind][0]} {script.options}")
    target = ["-m", script.run] if script.module else [script.run]
    own = shlex.split(script.arguments.replace("{data}", str(place.data(script.images))))
    command = [sys.executable, str(START), str(place.seed), str(folder), str(record)]
    command += ["--profile"] if kind == "profile" else []
    command += ["--", *options, "--json", str(rows), *target, *own]
    environment = _environment(kind, script, beside / "stand-ins", place)
    status, wall = _wait(command, folder / script.folder, environment, beside, script.seconds or place.seconds)
    figures, table = _read(record), _read(rows)
    return Ran(
        folder,
        status,
        figures.get("cpu", wall),
        figures.get("wall", wall),
        table.get("rows", []),
        figures.get("profile", []),
        (beside / "stdout").read_text(errors="replace"),
        (beside / "stderr").read_text(errors="replace"),
    )


def _copy(checkout: Path, folder: Path) -> None:
    """A checkout without what is large, or of its versions."""

    def ignored(where: str, names: list[str]) -> list[str]:
        paths = [Path(where, name) for name in names]
        return [p.name for p in paths if p.name == ".git" or (p.is_file() and p.stat().st_size > _LARGEST_FILE)]

    shutil.copytree(checkout, folder, ignore=ignored)


def _lay(script: Script, folder: Path, place: Place) -> None:
    for path, text in script.files.items():
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.replace("{data}", str(place.data(script.images))))


def _take(runs: Path, folder: Path, patterns: list[str]) -> None:
    """Copy what an earlier script's first run wrote: as it is or, where that failed, on fastdd."""
    for pattern in patterns:
        found = [(runs / kind, path) for kind in ("off-0", "fast-0") for path in sorted((runs / kind).glob(pattern))]
        for source, path in found:
            if source != found[0][0]:
                break
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
            else:
                shutil.copy(path, target)


def _environment(kind: str, script: Script, stand_ins: Path, place: Place) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(stand_ins), os.environ.get("PYTHONPATH", "")]))
    threads = str(place.threads)
    found = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    found |= {"WANDB_MODE": "disabled", "WANDB_SILENT": "true", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": ""}
    found.pop("FASTDD_COMPAT", None)
    if KINDS[kind][1]:
        found["FASTDD_COMPAT"] = KINDS[kind][1]
    return found | script.environment


def _wait(
    command: list[str], folder: Path, environment: dict[str, str], beside: Path, limit: int
) -> tuple[int | None, float]:
    begun = time.perf_counter()
    with open(beside / "stdout", "w") as output, open(beside / "stderr", "w") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = None
    return status, time.perf_counter() - begun


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
