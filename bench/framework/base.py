"""This tree against another commit: the same cases, results held together, calls in turns.

The other commit's files go to a temporary folder (``git archive``, which leaves nothing in the repository), with its
extension: the built one where ``csrc/`` is the same, else one that is built there. Each tree has a process of its own,
whose cases are its own; they compute one call at a time, in turns, so that whatever slows the machine down slows both.
A ratio stands beside a pair of times only where both results match the truth of their tree.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from fastdd.bench.framework import machine
from fastdd.bench.framework.timing import WARM_UP
from fastdd.core import ext, malloc
from fastdd.core.version import __version__

if TYPE_CHECKING:
    from rich.table import Table

_ROOT = Path(__file__).resolve().parents[2]
_WORKER = Path(__file__).resolve().parents[1] / "worker.py"
_MOST_ROUNDS = 1000
# Tail of the interval of the median that is left out on either side.
_TAIL = 0.025


@dataclass(frozen=True)
class Tree:
    """A tree to measure.

    Attributes:
        name: in words.
        commit: of 40 hexadecimal digits; of this tree None where it is no checkout.
        path: what goes first on Python's path; None: what is installed.
    """

    name: str
    commit: str | None
    path: Path | None


@contextmanager
def other_tree(ref: str, root: Path = _ROOT) -> Iterator[Tree]:
    """The tree of a commit in a temporary folder, with its extension.

    Raises:
        ValueError: fastdd is installed from no checkout, or the checkout has no such commit.
        RuntimeError: the commit's extension can't be built.
    """
    if not (root / ".git").exists():
        raise ValueError(f"--base compares commits, and {root} is no git checkout of fastdd")
    found = _git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if found.returncode:
        raise ValueError(f"--base {ref} is no commit of {root}")
    commit = found.stdout.decode().strip()
    with tempfile.TemporaryDirectory(prefix="fastdd-base-") as folder:
        tree = Path(folder) / "tree"
        packed = Path(folder) / "tree.tar"
        done = _git(root, "archive", f"--output={packed}", commit)
        if done.returncode:
            raise RuntimeError(f"git archive {ref}: {done.stderr.decode(errors='replace').strip()}")
        with tarfile.open(packed) as archive:
            archive.extractall(tree, filter="data")
        packed.unlink()
        # As setup.py installs them.
        for name in ("bench", "kernels"):
            if (tree / name).is_dir():
                (tree / "fastdd" / name).symlink_to(tree / name, target_is_directory=True)
        _give_extension(tree, ref)
        yield Tree(ref, commit, tree)


def _git(root: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True)


def _give_extension(tree: Path, ref: str) -> None:
    """Ours, if it is of the same sources; else its own is built."""
    if not ext.available():
        return  # pure Python beside pure Python
    if ext.source_hash(tree / "csrc") == ext.build_info()["source_hash"]:
        import fastdd._C

        shutil.copy2(fastdd._C.__file__, tree / "fastdd")
        return
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", ".", "--build-temp", "build"]
    built = subprocess.run(
        command, cwd=tree, env={**os.environ, "FASTDD_BUILD_EXT": "1"}, capture_output=True, text=True, errors="replace"
    )
    if built.returncode:
        last = (built.stderr.strip() or built.stdout.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"--base {ref}: its extension can't be built: {last}")


class Worker:
    """A tree's process.

    Raises:
        RuntimeError: it can't begin (an older commit may have no such benchmark), or imports another tree.
    """

    def __init__(self, tree: Tree, settings: dict[str, Any]):
        environment = dict(os.environ) if tree.path is None else {**os.environ, "PYTHONPATH": str(tree.path)}
        self.tree = tree
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        home = (_ROOT if tree.path is None else tree.path).resolve()
        if not Path(found := self.ask(**{"from": True})["from"]).resolve().is_relative_to(home):
            self.end()
            raise RuntimeError(f"the process of {tree.name} imports fastdd from {found}, not from {home}")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Its answer.

        Raises:
            RuntimeError: it has ended; what it said of it is on standard error.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"the process of {self.tree.name} has ended (exit code {code}); its error is above")
        return json.loads(line)

    def end(self) -> None:
        """Let it go."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def compare(
    trees: tuple[Tree, Tree],
    labels: Sequence[str],
    *,
    device: str,
    seed: int,
    threads: int,
    reps: int,
    budget: float,
    quick: bool,
) -> Iterator[dict[str, Any]]:
    """A row of every case.

    Args:
        trees: the other, then this.
        labels: of cases.
        device, seed, threads, quick: as ``fastdd bench`` has them.
        reps: least number of rounds, of a call of each.
        budget: seconds of a case, after which no further round begins once there are ``reps``.

    Yields:
        ``case``, ``base`` and ``this`` (``error``, ``budget``, ``match``, ``times`` in microseconds, or ``raised``),
        ``same`` (the largest difference of the results, in units of the largest element; 0 for the same bits; None
        where they can't be compared), ``ratio`` (:func:`ratio`) or None where either does not match.
    """
    settings = {"device": device, "seed": seed, "threads": threads, "quick": quick}
    settings["keep_memory"] = malloc.keeps_freed_memory()
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="fastdd-base-") as folder:
        workers = []
        for tree in trees:
            workers.append(Worker(tree, settings))
            stack.callback(workers[-1].end)
        for label in labels:
            paths = [Path(folder) / name for name in ("base.pt", "this.pt")]
            found = [worker.ask(open=label, to=str(path)) for worker, path in zip(workers, paths, strict=True)]
            sides = [_side(answer) for answer in found]
            if not any("raised" in side for side in sides):
                _time(workers, sides, reps, budget)
            raised = any("raised" in side for side in sides)
            alike = not raised and found[0]["shape"] == found[1]["shape"]
            matching = alike and all(side["match"] for side in sides)
            yield {
                "case": label,
                "base": sides[0],
                "this": sides[1],
                "same": _difference(*paths) if alike else None,
                "ratio": ratio(sides[0]["times"], sides[1]["times"]) if matching else None,
            }


def _side(answer: dict[str, Any]) -> dict[str, Any]:
    if "raised" in answer:
        return answer
    error, budget = answer["error"], answer["budget"]
    match = math.isfinite(error) and math.isfinite(budget) and error <= budget
    return {"error": error, "budget": budget, "match": match, "times": []}


def _time(workers: Sequence[Worker], sides: list[dict[str, Any]], reps: int, budget: float) -> None:
    """Their times, call by call; who begins changes from round to round."""
    spent = 0.0
    for number in range(WARM_UP + _MOST_ROUNDS):
        if number >= WARM_UP + reps and spent >= 1e6 * budget:
            return
        for i in ((0, 1), (1, 0))[number % 2]:
            answer = workers[i].ask(time=True)
            if "raised" in answer:
                sides[i].clear()
                sides[i].update(answer)
                return
            spent += answer["us"]
            if number >= WARM_UP:
                sides[i]["times"].append(answer["us"])


def ratio(base: Sequence[float], this: Sequence[float]) -> dict[str, float | None]:
    """How many times faster this tree is: the median over rounds of the ratio of their two times, and its interval.

    ``low`` and ``high`` are order statistics that hold the median with 95 % at least, whatever the distribution; None
    for fewer than 6 rounds, which can't.

    >>> ratio([2.0] * 5 + [3.0], [1.0] * 6)
    {'median': 2.0, 'low': 2.0, 'high': 3.0}
    """
    rounds = sorted(one / other for one, other in zip(base, this, strict=True))
    n, out, left = len(rounds), 0, 0.0
    while out < n // 2 and (left := left + math.comb(n, out) / 2**n) <= _TAIL:
        out += 1
    ends = (rounds[out - 1], rounds[n - out]) if out else (None, None)
    return {"median": median(rounds), "low": ends[0], "high": ends[1]}


def _difference(*paths: Path) -> float | None:
    import torch

    base, this = (torch.load(path, weights_only=True) for path in paths)
    if not base or [one.shape for one in base] != [one.shape for one in this]:
        return None
    if all(torch.equal(one, other) for one, other in zip(base, this, strict=True)):
        return 0.0
    return max(
        ((one.double() - other.double()).abs().max() / one.double().abs().max().clamp(min=1e-300)).item()
        for one, other in zip(base, this, strict=True)
    )


def document(trees: tuple[Tree, Tree], rows: Sequence[dict[str, Any]], device: Any, **settings: Any) -> dict[str, Any]:
    """For ``--json``: rows, and on what and how they were measured."""
    about = machine.describe(device) | {"fastdd": __version__}
    return {
        "schema": 1,
        "meta": {**about, "base": trees[0].commit, "ref": trees[0].name, **settings},
        "rows": list(rows),
    }


def failed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with this tree, in words."""
    wrong = []
    for row in rows:
        side = row["this"]
        if "raised" in side:
            wrong.append(f"{row['case']}: {side['raised']}")
        elif not side["match"]:
            wrong.append(f"{row['case']}: this tree is off by {side['error']:.1e}, allowed are {side['budget']:.1e}")
    return wrong


def table(trees: tuple[Tree, Tree], rows: Sequence[dict[str, Any]], about: str) -> "Table":
    """For people."""
    from rich.table import Table

    base = f"{trees[0].name} ({trees[0].commit[:9]})"
    result = Table(title=f"this tree against {base}; {about}", title_justify="left", box=None, header_style="")
    for name in ("case", "base", "this", "rounds", "times faster", "95 %", "results"):
        result.add_column(name, justify="left" if name in ("case", "results") else "right", no_wrap=True)
    for row in rows:
        cells = [_time_of(row[side]) for side in ("base", "this")]
        rounds = str(len(row["this"].get("times", ())))
        found = row["ratio"]
        factor = "-" if found is None else f"{found['median']:.3f}"
        ends = "-" if found is None or found["low"] is None else f"{found['low']:.3f} to {found['high']:.3f}"
        result.add_row(row["case"], *cells, rounds, factor, ends, _verdict(row))
    return result


def _time_of(side: dict[str, Any]) -> str:
    if not side.get("times"):
        return "-"
    us = median(side["times"])
    return f"{us:.1f} us" if us < 1e3 else f"{us / 1e3:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def _verdict(row: dict[str, Any]) -> str:
    for name in ("this", "base"):
        side = row[name]
        if "raised" in side:
            return f"{name}: {side['raised']}"[:60]
        if not side["match"]:
            return f"{name} does NOT match"
    if row["same"] is None:
        return "match; shapes differ" if row["ratio"] is None else "match"
    return "same bits" if row["same"] == 0 else f"match, differ by {row['same']:.0e}"
