"""Commands that are killed, what is done after that, and whether all is then as if nothing had happened."""

import hashlib
import json
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from forked import Script
from tally import Tally

# A command takes a second or so, several times as long on a busy machine.
_HANGS_AFTER = 300.0
_CHILD = "import json, sys; from kills.moments import run; run(*json.loads(sys.argv[1]))"
# Of JSON files: what the clock decides, and the words of the command, which may be those of the one that went on.
_PASSING = ("seconds", "expert_seconds", "utc", "argv")


@dataclass(frozen=True)
class Stage:
    """A command, in a folder of its own, and how it goes on after a kill.

    Attributes:
        name: for the table.
        command: words after ``fastdd``.
        again: commands that a user tries after a kill, one after another: the last has to succeed, or to refuse in one
            line what is done already; those before it may refuse.
        given: makes what is in the folder before.
        intact: given the folder right after a kill, whether what must be there at any moment is.
        old_system: without a way to let two folders change places in one step.
    """

    name: str
    command: Sequence[str]
    again: Sequence[Sequence[str]]
    given: Callable[[Path], object] = lambda folder: None
    intact: Callable[[Path], bool] = lambda folder: True
    old_system: bool = False


class Started:
    """A command that runs in ``folder``; ``last`` and ``log`` as :class:`kills.moments.Moments` has them."""

    def __init__(
        self, folder: Path, command: Sequence[str], last: int = 0, log: Path | None = None, *, old_system: bool = False
    ):
        self._script = Script(_CHILD, json.dumps([str(folder), list(command), last, log and str(log), old_system]))

    def kill(self) -> None:
        self._script.kill()

    def end(self) -> tuple[int | None, str]:
        """Its status, negative of a signal, None if it hangs; and what it wrote to standard error."""
        try:
            status = self._script.end(_HANGS_AFTER)
        except AssertionError:
            self._script.kill()
            return None, self._script.errors
        return status, self._script.errors


def judged(status: int | None, errors: str) -> str:
    """The outcome, as :mod:`tally` names it, of a command that was not killed; right as far as its status goes."""
    if status is None:
        return "hang"
    if "Traceback" in errors or "this is a bug" in errors:
        return "traceback"
    if status == 0:
        return "right"
    lines = [line for line in errors.splitlines() if not line.startswith("warning: ")]
    told = len(lines) == 1 and lines[0].startswith(("error: ", "interrupted"))
    return "clear error" if told and status in (1, 2, 75, 130) else "crash"


class Victim:
    """A stage with its unkilled result, in ``folder``; copies of what it starts from are run and killed."""

    def __init__(self, stage: Stage, folder: Path, tally: Tally):
        self.stage, self._folder, self._tally, self._number = stage, folder, tally, 0
        self._start, whole = folder / "start", folder / "whole"
        self._start.mkdir(parents=True)
        stage.given(self._start)
        shutil.copytree(self._start, whole, symlinks=True)
        began = time.monotonic()
        status, errors = self._started(whole, stage.command, log=folder / "operations").end()
        assert status == 0, f"{' '.join(stage.command)}: {errors}"
        self.seconds = time.monotonic() - began
        self.operations = (folder / "operations").read_text().splitlines()
        self.result = contents(whole)

    def die_at(self, operation: int) -> None:
        """Kill it at an operation, from 1, do what a user then does, and count how that ends."""
        self._case(f"operation {operation}", lambda folder: self._started(folder, self.stage.command, operation).end())

    def die_after(self, seconds: float) -> None:
        """The same, killed after a time."""

        def die(folder: Path) -> tuple[int | None, str]:
            started = self._started(folder, self.stage.command)
            time.sleep(seconds)
            started.kill()
            return started.end()

        self._case(f"after {seconds:.3f} s", die)

    def die_often(self, moments: Sequence[int]) -> None:
        """The same, but what goes on is killed at operations too, one after another."""

        def die(folder: Path) -> tuple[int | None, str]:
            status, errors = self._started(folder, self.stage.command, moments[0]).end()
            for moment in moments[1:]:
                if status != -signal.SIGKILL:
                    break
                status, errors = self._go_on(folder, moment)
            return status, errors

        self._case(f"operations {', '.join(map(str, moments))}", die)

    def two_at_once(self, operation: int) -> None:
        """Two at once in one folder, one of them killed at an operation: the other is right, or says why not."""

        def die(folder: Path) -> tuple[int | None, str]:
            both = [self._started(folder, self.stage.command, last) for last in (operation, 0)]
            (first, errors), second = both[0].end(), both[1].end()
            if judged(*second) not in ("right", "clear error"):
                return second
            return (-signal.SIGKILL, "") if second[0] == 0 or first == -signal.SIGKILL else (first, errors)

        self._case(f"two at once, one until operation {operation}", die)

    def _started(self, folder: Path, command: Sequence[str], last: int = 0, log: Path | None = None) -> Started:
        return Started(folder, command, last, log, old_system=self.stage.old_system)

    def _case(self, how: str, die: Callable[[Path], tuple[int | None, str]]) -> None:
        self._number += 1
        folder = self._folder / f"case-{self._number}"
        shutil.copytree(self._start, folder, symlinks=True)
        outcome, what = self._outcome(folder, die)
        self._tally.count(self.stage.name, outcome, f"{' '.join(self.stage.command)}, {how}: {what}")
        shutil.rmtree(folder)

    def _outcome(self, folder: Path, die: Callable[[Path], tuple[int | None, str]]) -> tuple[str, str]:
        status, errors = die(folder)
        if status != -signal.SIGKILL and (outcome := judged(status, errors)) != "right":
            return outcome, f"before the kill, status {status}, {errors}"
        if not self.stage.intact(folder):
            return "silent difference", f"right after the kill: {sorted(contents(folder))}"
        outcome = "right"
        if status == -signal.SIGKILL:
            status, errors = self._go_on(folder)
            outcome = judged(status, errors)
            if outcome not in ("right", "clear error"):
                return outcome, f"status {status}, {errors}"
        differences = [
            f"{name}: {'missing' if name not in found else 'left over' if name not in self.result else 'differs'}"
            for found in [contents(folder)]
            for name in sorted(found.keys() | self.result.keys())
            if found.get(name) != self.result.get(name)
        ]
        if differences and outcome == "clear error":
            return "crash", f"all that is left is to say: {errors}"
        return ("silent difference", "; ".join(differences)) if differences else ("right", "")

    def _go_on(self, folder: Path, last: int = 0) -> tuple[int | None, str]:
        for command in self.stage.again:
            status, errors = self._started(folder, command, last).end()
            if judged(status, errors) != "clear error":
                break
        return status, errors


def contents(folder: Path) -> dict[str, str]:
    """Everything below a folder, by its path: what it is and holds, without what the clock decides."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if path.is_dir():
        return "folder"
    content = path.read_bytes()
    if path.suffix == ".json":
        content = json.dumps(_timeless(json.loads(content)), sort_keys=True).encode()
    elif path.suffix == ".jsonl":
        content = json.dumps([_timeless(json.loads(line)) for line in content.splitlines()]).encode()
    elif path.suffix == ".pt":
        content = repr(_timeless(_plain(torch.load(path, weights_only=True)))).encode()
    elif path.suffix == ".html":
        # Seconds, also as the cell of a table; the figures are in the files beside.
        content = re.sub(rb"\d+(\.\d+)? (s|min|h)\b|>\d+\.\d</td", b"", content)
    return hashlib.sha256(content).hexdigest()


def _plain(value: Any) -> Any:
    """Tensors as digests of their bytes."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)} {hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _timeless(value: Any) -> Any:
    """Without times; of rows that are alike, as those of an evaluation that was made again are, one."""
    if isinstance(value, dict):
        return {key: _timeless(entry) for key, entry in value.items() if key not in _PASSING}
    if isinstance(value, list):
        entries = [_timeless(entry) for entry in value]
        rows = entries and all(isinstance(entry, dict) for entry in entries)
        return list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values()) if rows else entries
    return value
