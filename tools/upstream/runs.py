"""Running a script of a recipe: in a copy of its checkout, as its own and on fastdd's functions."""

import importlib.util
import json
import os
import re
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
# Training images a class, where later steps are timed.
_USUAL_IMAGES = 256
# What says single precision in code.
_SINGLE = {
    r"\btorch\.float(32)?\b": "torch.float64",
    r"\btorch\.FloatTensor\b": "torch.DoubleTensor",
    r"\.float\(\)": ".double()",
    r"\bnp\.float32\b": "np.float64",
}


@dataclass(frozen=True)
class Kind:
    """What a run is of.

    Args:
        options: of ``fastdd run``.
        compat: FASTDD_COMPAT.
        start: options of ``start.py``.
        double: whether the copy of the code says double precision where it says single.
        traced: whether the run ends where the script's ``traced`` says.
        further: whether the run is the one whose later steps are timed, and ends after them.
    """

    options: str = ""
    compat: str = ""
    start: tuple[str, ...] = ()
    double: bool = False
    traced: bool = False
    further: bool = False


KINDS = {
    "off": Kind(compat="0"),
    "fast": Kind("--rng fast"),
    "legacy": Kind("--rng legacy"),
    "profile": Kind("--rng fast", start=("--profile",)),
    "off-traced": Kind(compat="0", traced=True),
    "legacy-traced": Kind("--rng legacy", traced=True),
    "perturbed": Kind(compat="0", start=("--perturb",), traced=True),
    "off-further": Kind(compat="0", further=True),
    "fast-further": Kind("--rng fast", further=True),
    "off-double": Kind(compat="0", start=("--double",), double=True, traced=True),
    "legacy-double": Kind("--rng legacy", start=("--double",), double=True, traced=True),
}


@dataclass
class Ran:
    """A run that came to an end, its own or another.

    Args:
        folder: copy of the checkout, with what the script wrote.
        status: exit code; None after the limit.
        cpu, wall: seconds since the script's start, without the imports of torch and fastdd.
        rows: what was replaced (``fastdd run --json``).
        profile: (function, share).
        gradient: file of the first step's gradient of images, where there was one.
        images: file of the images, of a run that ended early.
        steps: CPU seconds after each step of images, or of networks where these are counted.
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
    gradient: Path | None = None
    images: Path | None = None
    steps: list[float] = field(default_factory=list)

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
        larger: whether scripts run at their larger settings.
    """

    work: Path
    data: Callable[[int], Path]
    seed: int = 0
    threads: int = 1
    seconds: int = 600
    larger: bool = False


def missing(recipe: Recipe) -> list[str]:
    """Packages that have to be installed first."""
    return [name for name in recipe.needs if importlib.util.find_spec(name) is None]


def run(recipe: Recipe, name: str, kind: str, turn: int, checkout: Path, place: Place) -> Ran:
    """A run of a script."""
    script, how = recipe.scripts[name], KINDS[kind]
    script = script.for_further_steps(_USUAL_IMAGES) if how.further else script.sized(place.larger)
    folder = place.work / recipe.name / name / f"{kind}-{turn}"
    shutil.rmtree(folder, ignore_errors=True)
    _copy(checkout, folder)
    if how.double:
        _in_double(folder)
    _lay(script, folder, place)
    for earlier, patterns in script.takes.items():
        _take(place.work / recipe.name / earlier, folder, patterns, how.double)
    beside = folder.parent / f"{kind}-{turn}.files"
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "stand-ins").mkdir(parents=True)
    for module, text in recipe.stand_ins.items():
        if importlib.util.find_spec(module) is None:
            (beside / "stand-ins" / f"{module}.py").write_text(text)
    record, rows = beside / "record.json", beside / "rows.json"
    options = shlex.split(f"{how.options} {script.options}")
    target = ["-m", script.run] if script.module else [script.run]
    own = shlex.split(script.arguments.replace("{data}", str(place.data(script.images))))
    command = [sys.executable, str(START), str(place.seed), str(folder), str(record), *how.start]
    command += [*_counted(script, how, place), "--", *options, "--json", str(rows), *target, *own]
    environment = _environment(how, script, beside / "stand-ins", place)
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
        *(path if path.is_file() else None for path in (beside / "gradient.pt", beside / "images.pt")),
        figures.get("steps", []),
    )


def _counted(script: Script, how: Kind, place: Place) -> list[str]:
    """Options of ``start.py``: whose steps are counted, and after which the run ends."""
    end = script.traced if how.traced else script.larger.end if place.larger else 0
    if how.further:
        end = (script.further.own if how.compat else script.further.ours)[1] * script.further.each
    networks = how.further and script.further.of == "networks"
    return [*(["--networks"] if networks else []), *([f"--end={end}"] if end else [])]


def has_run(recipe: Recipe, name: str, place: Place) -> bool:
    """Whether what a script wrote is there."""
    return (place.work / recipe.name / name / "off-0.files" / "record.json").is_file()


def _copy(checkout: Path, folder: Path) -> None:
    """A checkout without what is large, or of its versions."""

    def ignored(where: str, names: list[str]) -> list[str]:
        paths = [Path(where, name) for name in names]
        return [p.name for p in paths if p.name == ".git" or (p.is_file() and p.stat().st_size > _LARGEST_FILE)]

    shutil.copytree(checkout, folder, ignore=ignored)


def _in_double(folder: Path) -> None:
    for path in folder.rglob("*.py"):
        text = before = path.read_text(errors="surrogateescape")
        for single, double in _SINGLE.items():
            text = re.sub(single, double, text)
        if text != before:
            path.write_text(text, errors="surrogateescape")


def _lay(script: Script, folder: Path, place: Place) -> None:
    for path, text in script.files.items():
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.replace("{data}", str(place.data(script.images))))


def _take(runs: Path, folder: Path, patterns: list[str], double: bool) -> None:
    """Copy what an earlier script's first run wrote: as it is or, where that failed, on fastdd."""
    kinds = ("off-double-0", "legacy-double-0") if double else ("off-0", "fast-0")
    for pattern in patterns:
        found = [(runs / kind, path) for kind in kinds for path in sorted((runs / kind).glob(pattern))]
        for source, path in found:
            if source != found[0][0]:
                break
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
            else:
                shutil.copy(path, target)


def _environment(kind: Kind, script: Script, stand_ins: Path, place: Place) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(stand_ins), os.environ.get("PYTHONPATH", "")]))
    threads = str(place.threads)
    found = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    found |= {"WANDB_MODE": "disabled", "WANDB_SILENT": "true", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": ""}
    found.pop("FASTDD_COMPAT", None)
    if kind.compat:
        found["FASTDD_COMPAT"] = kind.compat
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
