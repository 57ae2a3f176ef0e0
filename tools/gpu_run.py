"""What ``bench/gpu.sh`` does: stages on a machine with a GPU, each within a limit, each with results that stay.

Only the standard library, as it runs before anything is installed. ``OUT/summary.json`` says at any moment how far
every stage is and what the machine is; a stage that has come to its end has ``OUT/STAGE/result.json``, and is not done
again. One that was stopped, by its limit or a kill, goes on where it was.
"""

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import wheels
from gpu_stages import PREPARE, ROOT, STAGES, Part, Setup, Stage

USAGE = """bench/gpu.sh [--again] [STAGE...]     stages, without any: all that fit, in this order
bench/gpu.sh wheels DIR               with network: wheels for a machine without, see tools/wheels.py
bench/gpu.sh --list                   stages and their limits

environment:
  OUT      folder of results (bench-out)       FROM    OUT of an earlier call, to go on with in a new OUT
  LIMIT    seconds of a stage (its own)        TOTAL   seconds of the command (570)
  WHEELS   folder that "wheels DIR" filled     DATA    folder with MNIST's four files (headline)
  PYTHON   an interpreter with PyTorch         DEVICE  cuda, or cpu: a dry run of tiny sizes (cuda)
"""
# A stage is not begun with less time left, and the rest of its limit is for the end of what is stopped.
_LEAST_SECONDS, _GRACE_SECONDS = 30.0, 20.0
_POLL_SECONDS, _LOOK_SECONDS = 0.2, 15.0
_TAIL = 15
_LOOK = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")
_GPU = (
    *("name", "driver_version", "vbios_version", "memory.total", "power.limit", "persistence_mode", "mig.mode.current"),
    *("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "clocks.applications.graphics", "ecc.mode.current"),
)


class Stopped(Exception):
    """The command was asked to end."""


class Run:
    """The stages of one call.

    Args:
        setup: of the environment.

    Attributes:
        summary: what ``OUT/summary.json`` has.
    """

    def __init__(self, setup: Setup):
        self._setup, self._began = setup, time.monotonic()
        self._path = setup.out / "summary.json"
        setup.out.mkdir(parents=True, exist_ok=True)
        if setup.before is not None and not self._path.exists():
            shutil.copytree(setup.before, setup.out, dirs_exist_ok=True)
        self.summary: dict[str, Any] = {"device": setup.device, "machine": {}, "stages": {}}
        with contextlib.suppress(OSError, ValueError):
            self.summary = _read_json(self._path)
        if self.summary["device"] != setup.device:
            raise ValueError(f"{setup.out} holds results of DEVICE={self.summary['device']}: name another folder, OUT")
        self._child: subprocess.Popen | None = None
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True

    @property
    def left(self) -> float:
        """Seconds until TOTAL."""
        return self._setup.total - (time.monotonic() - self._began)

    def write(self) -> None:
        """``summary.json``, whole."""
        _write_json(self._path, self.summary)

    def result(self, name: str) -> Path:
        """The file that a stage has which has come to its end."""
        return self._setup.out / name / "result.json"

    def state(self, name: str, state: str) -> None:
        """Note the state of a stage that is not run."""
        self.summary["stages"].setdefault(name, {"seconds": 0.0, "calls": 0})["state"] = state
        self.write()
        _tell(f"== {name}: {state}")

    def prepare(self) -> bool:
        """Install and build; then say in the summary what the machine is."""
        entry = self.stage(PREPARE)
        self.summary["machine"] |= describe(self._setup)
        self.write()
        return entry["state"] == "done"

    def stage(self, stage: Stage) -> dict[str, Any]:
        """Run a stage within its limit and what is left; its entry of the summary."""
        folder = self._setup.out / stage.name
        parts = stage.parts(self._setup, folder)  # before anything is noted: it refuses what it can't work with
        folder.mkdir(exist_ok=True)
        limit = min(self._setup.limit or stage.limit, self.left)
        before = self.summary["stages"].get(stage.name, {"seconds": 0.0, "calls": 0})
        entry = {"state": "running", "seconds": before["seconds"], "calls": before["calls"] + 1, "limit": round(limit)}
        self.summary["stages"][stage.name] = entry | {"parts": []}
        entry = self.summary["stages"][stage.name]
        began = time.monotonic()
        _tell(f"== {stage.name}: {stage.about}; at most {limit:.0f} s")
        for part in parts:
            row = {"name": part.name, "state": "running", "exit": None, "seconds": 0.0}
            entry["parts"].append(row)
            self._part(part, row, entry, folder, began + limit, before["seconds"] - began)
            if row["state"] == "stopped":
                break
        states = [row["state"] for row in entry["parts"]]
        entry["state"] = next((state for state in ("stopped", "failed") if state in states), "done")
        entry["seconds"] = round(before["seconds"] + time.monotonic() - began, 1)
        self.write()
        if entry["state"] != "stopped" and stage is not PREPARE:
            _write_json(self.result(stage.name), entry)
        _tell(f"== {stage.name}: {entry['state']}, {time.monotonic() - began:.0f} s")
        if self._asked:
            raise Stopped
        return entry

    def _part(
        self, part: Part, row: dict[str, Any], entry: dict[str, Any], folder: Path, end: float, spent: float
    ) -> None:
        """Run a part until ``end``; its row says how it went, and the summary every few seconds how far it is."""
        log, began, looked = folder / f"{part.name}.log", time.monotonic(), 0.0
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **part.environment}
        stop_at = end - min(_GRACE_SECONDS, (end - began) / 4)
        with open(log, "ab") as file:
            file.write(f"$ {' '.join(part.command)}\n".encode())
            file.flush()
            self._child = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
            ended_by = ""
            while self._child.poll() is None:
                now = time.monotonic()
                if not ended_by and (self._asked or now > stop_at):
                    ended_by = "its limit" if now > stop_at else "a signal"
                    self._signal(signal.SIGTERM)
                    end = min(end, now + _GRACE_SECONDS)
                if ended_by and now > end:
                    self._signal(signal.SIGKILL)
                if now - looked > _LOOK_SECONDS:
                    looked = now
                    _note_gpu(entry)
                    row["seconds"] = round(now - began, 1)
                    entry["seconds"] = round(spent + now, 1)
                    self.write()
                time.sleep(_POLL_SECONDS)
            self._signal(signal.SIGKILL)  # what it has left behind
        code = self._child.returncode
        state = "stopped" if ended_by or code < 0 else "done" if code == 0 else "failed"
        row |= {"state": state, "exit": code, "seconds": round(time.monotonic() - began, 1)}
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        _tell("\n".join(f"   {line}" for line in lines[-_TAIL:]))
        _tell(f"   {part.name}: {state}{f' by {ended_by}' if ended_by else ''}, {row['seconds']} s, all in {log}")

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)


def _end_with_parent() -> None:
    """Of a child on Linux: ask it to end when this process is killed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _smi(fields: tuple[str, ...]) -> dict[str, str]:
    """What nvidia-smi says of the first GPU, of the fields that it knows; nothing where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except OSError:
        return {}
    except subprocess.SubprocessError:
        # One unknown field fails them all.
        return {} if len(fields) == 1 else {name: value for one in fields for name, value in _smi((one,)).items()}
    values = done.stdout.splitlines()[0].split(",") if done.stdout else []
    return dict(zip(fields, (value.strip() for value in values), strict=False))


def _note_gpu(entry: dict[str, Any]) -> None:
    """Lowest and highest clocks, power and temperature while a stage runs."""
    for name, text in _smi(_LOOK).items():
        number = text.split()[0]
        if number.replace(".", "", 1).isdigit():
            low, high = entry.setdefault("gpu", {}).get(name, (float(number),) * 2)
            entry["gpu"][name] = [min(low, float(number)), max(high, float(number))]


def describe(setup: Setup) -> dict[str, Any]:
    """GPU, driver and clocks by nvidia-smi; versions and processor by fastdd, once it is there; the compiler."""

    def said(*command: str) -> str | None:
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    script = "import json, torch; from fastdd.bench.framework import machine; "
    script += f"print(json.dumps(machine.describe(torch.device('{setup.device}'))))"
    versions = said(setup.python, "-c", script)
    full = said("nvidia-smi", "-q")
    if full:
        (setup.out / "nvidia-smi.txt").write_text(full + "\n", encoding="utf-8")
    nvcc = said("nvcc", "--version")
    return {
        "nvidia_smi": _smi(_GPU),
        "versions": json.loads(versions.splitlines()[-1]) if versions else None,
        "nvcc": nvcc and nvcc.splitlines()[-1],
        "cores": os.cpu_count(),
    }


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _tell(line: str) -> None:
    print(line, flush=True)


def run(setup: Setup, names: list[str], again: bool) -> int:
    """The stages by name, or all that can be run; 0 if all that were to be run have come to a good end."""
    wanted = names or list(STAGES)
    for name in names:
        if lacks := STAGES[name].lacks(setup):
            raise ValueError(f"{name} needs {lacks}")
    whole = Run(setup)
    if again:
        for name in wanted:
            shutil.rmtree(setup.out / name, ignore_errors=True)
            whole.summary["stages"].pop(name, None)
    open_stages = [name for name in wanted if not whole.result(name).is_file()]
    ended = {
        name: json.loads(whole.result(name).read_text(encoding="utf-8")) for name in set(wanted) - set(open_stages)
    }
    for name, entry in sorted(ended.items()):
        _tell(f"== {name}: {entry['state']} before, in {setup.out / name}; --again does it over")
    good = all(entry["state"] == "done" for entry in ended.values())
    try:
        if open_stages and not whole.prepare():
            _tell(f"error: could not prepare, see {setup.out / PREPARE.name}")
            return 1
        for name in open_stages:
            if lacks := STAGES[name].lacks(setup):
                whole.state(name, f"left out: needs {lacks}")
            elif whole.left < min(_LEAST_SECONDS, setup.total / 4):
                whole.state(name, "no time left: the same command goes on")
                good = False
            else:
                good &= whole.stage(STAGES[name])["state"] == "done"
    except Stopped:
        return 130
    _tell(f"{setup.total - whole.left:.0f} s; {setup.out / 'summary.json'}")
    return 0 if good else 1


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench/gpu.sh", usage=USAGE, add_help=True)
    parser.add_argument("--again", action="store_true", help="do over what is done")
    parser.add_argument("--list", action="store_true", help="say what there is to do")
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    given = parser.parse_args(arguments)
    try:
        if given.stages[:1] == ["wheels"]:
            if len(given.stages) != 2:
                raise ValueError("wheels needs a folder: bench/gpu.sh wheels DIR")
            wheels.collect(Path(given.stages[1]))
            return 0
        for name in given.stages:
            if name not in STAGES:
                raise ValueError(f"{name} is no stage: {', '.join(STAGES)}, or wheels DIR")
        if given.list:
            for stage in STAGES.values():
                _tell(f"{stage.name:9} {stage.limit:4.0f} s  {stage.about}")
            return 0
        return run(Setup.of(os.environ), given.stages, given.again)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
