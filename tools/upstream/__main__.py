"""Published code, run with and without fastdd: what runs to its end, what agrees, and how long it takes.

    python tools/upstream CODE --data DIR --out DIR [--only NAME...] [--repeats 3] [--threads 1]

``CODE`` is a folder of checkouts; a code base that is not there is a row that says so. Each script runs with
``FASTDD_COMPAT=0`` and with ``fastdd run``, in turns, from the same seeds; once with ``--rng legacy``, the results of
which are compared; once under a profiler. Seconds are of the CPU, medians, without the imports of torch and fastdd.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import data
import exchange
import parity
import recipes
import report
import runs
import torch

_REMAINS = 4


def main() -> int:
    given = _arguments()
    known = {recipe.name.lower(): recipe for recipe in recipes.load()}
    names = list(map(str.lower, given.only or known))
    if unknown := [name for name in names if name not in known]:
        print(f"no recipe of {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    about = {"torch": torch.__version__, "threads": given.threads, "repeats": given.repeats, "seed": given.seed}
    about |= {"images a class": f"{given.train} and {given.test}", "load": f"{os.getloadavg()[0]:.1f}"}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(given.work or scratch).resolve()
        few = data.Few(given.data, work / "data", given.train, given.test)
        place = runs.Place(work, few, given.seed, given.threads, given.seconds)
        if not few.names:
            print(f"{given.data} has neither mnist/ nor cifar10/", file=sys.stderr)
            return 2
        for recipe in map(known.get, names):
            for row in _rows(recipe, given, place):
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
    parser.add_argument("--repeats", type=int, default=1, help="runs with and without, each")
    parser.add_argument("--threads", type=int, default=1, help="of a run")
    parser.add_argument("--seed", type=int, default=0, help="of all generators")
    parser.add_argument("--train", type=int, default=25, help="training images a class")
    parser.add_argument("--test", type=int, default=5, help="test images a class")
    parser.add_argument("--seconds", type=int, default=900, help="limit of a run")
    parser.add_argument("--no-profile", dest="profile", action="store_false", help="leave out what remains")
    parser.add_argument("--work", help="folder that keeps what the scripts wrote")
    given = parser.parse_args()
    if not given.code.is_dir():
        parser.error(f"there is no folder {given.code}")
    return given


def _rows(recipe: recipes.Recipe, given: argparse.Namespace, place: runs.Place) -> Any:
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
    for name in recipe.scripts:
        if name in wanted:
            yield _row(recipe, name, checkout, given, place)


def _row(
    recipe: recipes.Recipe, name: str, checkout: Path, given: argparse.Namespace, place: runs.Place
) -> dict[str, Any]:
    begun, script = time.perf_counter(), recipe.scripts[name]

    def run(kind: str, turn: int = 0) -> runs.Ran:
        return runs.run(recipe, name, kind, turn, checkout, place)

    off, fast = [], []
    for turn in range(given.repeats):
        off.append(run("off", turn))
        fast.append(run("fast", turn))
    row: dict[str, Any] = {"code": recipe.name, "script": name, "why": [fast[0].why, off[0].why]}
    row["ends"] = ", ".join("yes" if not one.why else f"no ({one.why})" for one in (off[0], fast[0]))
    row["replaced"] = [_replaced(one) for one in fast[0].rows]
    if not fast[0].why:
        legacy = run("legacy")
        row["ends"] += f"; legacy no ({legacy.why})" if legacy.why else ""
        if not off[0].why and not legacy.why:
            said = legacy.output + legacy.errors, off[0].output + off[0].errors
            found = parity.compare(legacy.folder, off[0].folder, script.results, said)
            row["parity"], row["difference"] = str(found), found.difference
    row["seconds"] = [None if ran[0].why else statistics.median(one.cpu for one in ran) for ran in (off, fast)]
    row["wall"] = [None if ran[0].why else statistics.median(one.wall for one in ran) for ran in (off, fast)]
    if None not in row["seconds"]:
        row["ratio"] = row["seconds"][0] / row["seconds"][1]
    if given.profile and not fast[0].why:
        profiled = run("profile").profile[:_REMAINS]
        row["remains"] = [f"{called} {share:.0%}" for called, share in profiled]
    ended = next((one for one in (off[0], fast[0]) if not one.why), None)
    row["exchange"] = (
        [exchange.there_and_back(files, ended.folder, given.data) for files in script.exchange] if ended else []
    )
    row["took"] = round(time.perf_counter() - begun, 1)
    return row


def _replaced(row: dict[str, Any]) -> str:
    if row["ours"] is None:
        return f"not {row['name']}"
    original = f", {row['original']} of them by the original" if row["original"] else ""
    return f"{row['name']} ({row['calls']} calls{original})"


def _say(row: dict[str, Any]) -> None:
    ratio = f", {row['ratio']:.2f}x" if "ratio" in row else ""
    print(f"{row['code']} {row.get('script', '')}: {row['ends']}{ratio} [{row.get('took', 0)} s]", flush=True)
    for part in [row.get("parity"), *row.get("exchange", ())]:
        if part:
            print(f"    {part}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
