"""Published code, run with and without fastdd: what runs to its end, what agrees, and how long it takes.

    python tools/upstream CODE --data DIR --out DIR [--only NAME...] [--larger] [--trace] [--repeats 3] [--threads 1]

``CODE`` is a folder of checkouts; a code base that is not there is a row that says so. Each script runs with
``FASTDD_COMPAT=0`` and with ``fastdd run``, in turns, from the same seeds; once with ``--rng legacy``, the results of
which are compared; once under a profiler. Seconds are of the CPU, medians, without the imports of torch and fastdd.
``--larger`` is for times, ``--trace`` for how two runs part. Every row is written as it comes; ``--resume`` goes on.
"""

import argparse
import functools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import data
import exchange
import parity
import recipes
import report
import runs

_REMAINS = 4
_SAID = ("further", "extrapolated", "parity", "gradient", "traced", "double", "perturbed", "remains", "exchange")
Done = dict[tuple[str, str], dict[str, Any]]


def main() -> int:
    given = _arguments()
    known = {recipe.name.lower(): recipe for recipe in recipes.load()}
    names = list(map(str.lower, given.only or known))
    if unknown := [name for name in names if name not in known]:
        print(f"no recipe of {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    about = {"torch": torch.__version__, "threads": given.threads, "repeats": given.repeats, "seed": given.seed}
    about |= {"images a class": f"{given.train} and {given.test}", "larger": given.larger, "trace": given.trace}
    about |= {"load": f"{os.getloadavg()[0]:.1f}"}
    rows: list[dict[str, Any]] = []
    done = report.done(given.out, about) if given.resume else {}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(given.work or scratch).resolve()
        few = data.Few(given.data, work / "data", given.train, given.test)
        place = runs.Place(work, few, given.seed, given.threads, given.seconds, given.larger)
        if not few.names:
            print(f"{given.data} has neither mnist/ nor cifar10/", file=sys.stderr)
            return 2
        for recipe in map(known.get, names):
            for row in _rows(recipe, given, place, done):
                rows.append(row)
                _say(row)
                report.write(rows, about, given.out)
    print(*report.write(rows, about, given.out), sep="\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/upstream", description=__doc__.partition("\n")[0])
    parser.add_argument("code", type=Path, help="folder of checkouts")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist/ and cifar10/")
    parser.add_argument("--out", type=Path, required=True, help="for upstream.md and upstream.json")
    parser.add_argument("--only", nargs="*", help="names of code bases")
    parser.add_argument("--scripts", nargs="*", help="names of scripts; those that they take files from run too")
    parser.add_argument("--repeats", type=int, default=1, help="runs with and without, each; 0: no times")
    parser.add_argument("--threads", type=int, default=1, help="of a run")
    parser.add_argument("--seed", type=int, default=0, help="of all generators")
    parser.add_argument("--larger", action="store_true", help="settings for times: most of a run is the script's work")
    parser.add_argument("--train", type=int, help="training images a class (25; 256 with --larger)")
    parser.add_argument("--test", type=int, help="test images a class (5; 50 with --larger)")
    parser.add_argument("--seconds", type=int, default=900, help="limit of a run")
    parser.add_argument(
        "--each", type=int, default=0, help="seconds a script, after which no run of a code base begins (0: no limit)"
    )
    parser.add_argument("--trace", action="store_true", help="also in double precision, and the script's own perturbed")
    parser.add_argument("--further", action="store_true", help="also what a step costs once a run is under way")
    parser.add_argument("--no-parity", dest="parity", action="store_false", help="leave out --rng legacy")
    parser.add_argument("--resume", action="store_true", help="keep the rows that --out has, of the same settings")
    parser.add_argument("--no-profile", dest="profile", action="store_false", help="leave out what remains")
    parser.add_argument("--work", help="folder that keeps what the scripts wrote")
    given = parser.parse_args()
    if not given.code.is_dir():
        parser.error(f"there is no folder {given.code}")
    given.train = given.train or (256 if given.larger else 25)
    given.test = given.test or (50 if given.larger else 5)
    return given


def _rows(recipe: recipes.Recipe, given: argparse.Namespace, place: runs.Place, done: Done) -> Iterator[dict[str, Any]]:
    checkout = recipe.checkout(given.code)
    if checkout is None:
        yield {"code": recipe.name, "ends": "not there", "source": recipe.source}
        return
    if recipe.why_not:
        yield {"code": recipe.name, "ends": f"not run: {recipe.why_not}"}
        return
    if lacking := runs.missing(recipe):
        yield {"code": recipe.name, "ends": f"not run: needs {', '.join(lacking)}"}
        return
    wanted = set(given.scripts or recipe.scripts)
    for name in given.scripts or ():
        wanted |= set(recipe.scripts[name].takes) if name in recipe.scripts else set()
    until = time.perf_counter() + given.each * len(wanted & set(recipe.scripts)) if given.each else math.inf
    for name in recipe.scripts:
        if (recipe.name, name) in done:
            yield done[recipe.name, name]
        elif name in wanted:
            for earlier in recipe.scripts[name].takes:
                if not runs.has_run(recipe, earlier, place):  # the command that ran it has ended
                    runs.run(recipe, earlier, "off", 0, checkout, place)
            yield _row(_Runs(recipe, name, checkout, place, until), given)


@dataclass(frozen=True)
class _Runs:
    """Runs of a script, within the time of its code base."""

    recipe: recipes.Recipe
    name: str
    checkout: Path
    place: runs.Place
    until: float

    def __call__(self, kind: str, turn: int = 0) -> runs.Ran:
        return runs.run(self.recipe, self.name, kind, turn, self.checkout, self.place)

    def over(self, seconds: float = 0.0) -> bool:
        """Whether the time is over, or would be by runs that take so long."""
        return time.perf_counter() + seconds > self.until

    @property
    def script(self) -> recipes.Script:
        return self.recipe.scripts[self.name]

    def apart(self, one: runs.Ran, other: runs.Ran) -> parity.Parity:
        """How far what two runs stored and said is apart."""
        said = one.output + one.errors, other.output + other.errors
        return parity.compare(one.folder, other.folder, self.script.results, said)


def _row(run: _Runs, given: argparse.Namespace) -> dict[str, Any]:
    begun, off, fast = time.perf_counter(), [], []
    row: dict[str, Any] = {"code": run.recipe.name, "script": run.name}
    if run.over():
        return row | {"ends": f"not run: the code base's {given.each} s a script are spent"}
    if not given.repeats:
        row |= {"ends": "not timed"} | _further(run, given) | _agreement(run, None, given) | _remains(run, given)
        return row | {"took": round(time.perf_counter() - begun, 1)}
    for turn in range(given.repeats):
        if turn and run.over((time.perf_counter() - begun) / turn):
            row["repeats"] = turn
            break
        off.append(run("off", turn))
        fast.append(run("fast", turn))
    row["why"] = [fast[0].why, off[0].why]
    row["ends"] = ", ".join("yes" if not one.why else f"no ({one.why})" for one in (off[0], fast[0]))
    row["replaced"] = [_replaced(one) for one in fast[0].rows]
    row["seconds"] = [None if ran[0].why else statistics.median(one.cpu for one in ran) for ran in (off, fast)]
    row["wall"] = [None if ran[0].why else statistics.median(one.wall for one in ran) for ran in (off, fast)]
    if None not in row["seconds"]:
        row["ratio"] = row["seconds"][0] / row["seconds"][1]
        row["parts"] = [_parts(ran[0]) for ran in (off, fast)]
    if not fast[0].why and not run.over():
        row |= _further(run, given) | _agreement(run, off[0], given) | _remains(run, given)
    ended = next((one for one in (off[0], fast[0]) if not one.why), None)
    row["exchange"] = (
        [exchange.there_and_back(files, ended.folder, given.data) for files in run.script.exchange] if ended else []
    )
    row["took"] = round(time.perf_counter() - begun, 1)
    return row


def _parts(ran: runs.Ran) -> list[float]:
    """CPU seconds to the first step of images, from there to the last, and after it."""
    return [ran.steps[0], ran.steps[-1] - ran.steps[0], ran.cpu - ran.steps[-1]] if ran.steps else []


def _further(run: _Runs, given: argparse.Namespace) -> dict[str, Any]:
    """What a step costs once a run is under way, and what of that makes up the published number of steps."""
    settings = run.script.further
    if not given.further or settings is None:
        return {}
    costs, wholes = [], []
    for kind, (begin, end) in (("off-further", settings.own), ("fast-further", settings.ours)):
        ran = run(kind)
        if ran.why or len(ran.steps) < end * settings.each:
            return {"further": f"{kind}: {ran.why or f'{len(ran.steps)} steps'}"}
        before, after = (ran.steps[number * settings.each - 1] for number in (begin, end))
        costs.append((after - before) / (end - begin))
        wholes.append(before + (settings.published - begin) * costs[-1])
    found: dict[str, Any] = {"further": [*costs, costs[0] / costs[1]]}
    return found | ({"extrapolated": [settings.published, wholes[0] / wholes[1]]} if settings.published else {})


def _remains(run: _Runs, given: argparse.Namespace) -> dict[str, Any]:
    """Where the time of a run with fastdd is."""
    if not given.profile:
        return {}
    ran = run("profile")
    return {"remains": [ran.why] if ran.why else [f"{called} {share:.0%}" for called, share in ran.profile[:_REMAINS]]}


def _agreement(run: _Runs, off: runs.Ran | None, given: argparse.Namespace) -> dict[str, Any]:
    """What two runs from the same seeds have in common, and how they part."""
    found: dict[str, Any] = {}
    if given.parity:
        off, legacy = off or run("off"), run("legacy")
        if legacy.why:
            found["parity"] = f"legacy does not end ({legacy.why})"
        elif not off.why:
            apart = run.apart(legacy, off)
            found["parity"], found["difference"] = str(apart), apart.difference
            found["gradient"] = [parity.tensors(legacy.gradient, off.gradient)]
    return found | (_traced(run, off, found.get("gradient", [None])) if given.trace else {})


def _traced(run: _Runs, off: runs.Ran | None, gradient: list[float | None]) -> dict[str, Any]:
    """Two runs in double precision, and the script's own with its own perturbed."""
    found: dict[str, Any] = {"gradient": gradient}
    if run.script.traced:
        off, legacy = run("off-traced"), run("legacy-traced")
        found["traced"] = _images_apart(run, legacy, off)
        found["gradient"] = [parity.tensors(legacy.gradient, off.gradient)]
    off = off or run("off")
    apart = functools.partial(_images_apart, run) if run.script.traced else run.apart
    theirs, ours, perturbed = run("off-double"), run("legacy-double"), run("perturbed")
    for name, one, other in (("double", ours, theirs), ("perturbed", perturbed, off)):
        why = one.why or other.why
        found[name] = f"does not end ({why})" if why else str(apart(one, other))
    if (of_perturbed := parity.tensors(perturbed.gradient, off.gradient)) is not None:
        found["gradient"] = [*found["gradient"], of_perturbed]
    return found


def _images_apart(run: _Runs, one: runs.Ran, other: runs.Ran) -> str:
    why = one.why or other.why
    apart = parity.tensors(one.images, other.images)
    return why or f"images after {run.script.traced} steps within {parity.short(apart)}"


def _replaced(row: dict[str, Any]) -> str:
    if row["ours"] is None:
        return f"not {row['name']}"
    original = f", {row['original']} of them by the original" if row["original"] else ""
    return f"{row['name']} ({row['calls']} calls{original})"


def _say(row: dict[str, Any]) -> None:
    ratio = f", {row['ratio']:.2f}x" if "ratio" in row else ""
    print(f"{row['code']} {row.get('script', '')}: {row['ends']}{ratio} [{row.get('took', 0)} s]", flush=True)
    for what in _SAID:
        if row.get(what) is not None:
            print(f"    {what}: {row[what]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
