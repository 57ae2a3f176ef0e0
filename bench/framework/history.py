"""All committed results, by case and machine, over time: a table and a picture.

What counts are the files of ``bench/results`` and, in a git checkout, every version of them that was committed.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdd.bench.framework import schema
from fastdd.bench.framework.table import case_label
from fastdd.core import files, reading

if TYPE_CHECKING:
    from rich.table import Table

RESULTS = Path(__file__).resolve().parents[1] / "results"
# Inches: the height of a case's row, and of a panel over time.
_ROW, _PANEL, _DPI = 0.19, 2.0, 100
_MOST_PANELS = 24
_COLORS = ("#2e7d4f", "#b5651d", "#4a7fb5", "#8a6fb0", "#c0504d", "#555555")
_MARKS = "osD^vP"


@dataclass(frozen=True)
class Point:
    """A case, measured.

    Attributes:
        case: name, with the dtype and sizes that tell it from others of the file.
        machine: device, threads and memory policy.
        utc: when; commit: of what, 40 digits, and ``+`` where files differed from it; None where it is not known.
        file: the file's name.
        median_us: our median.
        speedup: over plain PyTorch in the same run; None where there is none.
    """

    case: str
    machine: str
    utc: str
    commit: str | None
    file: str
    median_us: float
    speedup: float | None


def points(documents: Iterable[tuple[str, dict[str, Any]]], globs: Sequence[str] = ()) -> list[Point]:
    """Of documents (:mod:`fastdd.bench.framework.schema`) by file name: what fastdd took where its result matches, the
    oldest first; a measurement that several files have counts once. Those of tiny inputs are left out.

    Raises:
        ValueError: no document has a case of one of the globs.
    """
    documents = [(file, document) for file, document in documents if not document["meta"]["quick"]]
    everything = [row for _, document in documents for row in document["rows"]]
    for glob in globs:
        if not any(fnmatchcase(row["case"], glob) for row in everything):
            raise ValueError(f"no committed result is of a case that matches {glob!r}")
    found: dict[tuple, Point] = {}
    for file, document in documents:
        meta = document["meta"]
        commit = meta["git"] and meta["git"]["commit"] + ("+" if meta["git"]["dirty"] else "")
        for row in document["rows"]:
            if row["backend"] != "fastdd" or not row["match"] or not row["median_us"]:
                continue
            if globs and not any(fnmatchcase(row["case"], glob) for glob in globs):
                continue
            label, machine = case_label(row, everything), machine_of(meta)
            point = Point(label, machine, meta["utc"], commit, file, row["median_us"], row["speedup"]["torch"])
            found.setdefault((label, machine, meta["utc"]), point)
    return sorted(found.values(), key=lambda point: (point.case, point.machine, point.utc))


def machine_of(meta: dict[str, Any]) -> str:
    """What times are comparable on, in words.

    >>> machine_of({"device": "NVIDIA H200", "compute_capability": "9.0", "threads": 8, "keeps_freed_memory": True})
    'NVIDIA H200'
    """
    if meta["compute_capability"]:
        return meta["device"]
    memory = "memory kept" if meta["keeps_freed_memory"] else "default malloc"
    return f"{meta['device']}, {meta['threads']} thread{'s' * (meta['threads'] != 1)}, {memory}"


def committed(folder: Path = RESULTS) -> list[tuple[str, dict[str, Any]]]:
    """Every measurement in the folder, as it is and as git has it, by file name; files of other kinds are left out."""
    texts = [(path.name, reading.text(path)) for path in sorted(folder.glob("*.json"))]
    texts += _of_git(folder)
    found = []
    for name, text in dict.fromkeys(texts):
        try:
            content = reading.parse_json(text)
            schema.validate(content, name)
        except (ValueError, TypeError):
            continue  # launches, predictions, or of a version before the schema
        found.append((name, content))
    return found


def _of_git(folder: Path) -> list[tuple[str, str]]:
    """Name and text of every version of the folder's JSON files; nothing outside of a checkout."""

    def git(*words: str, given: str | None = None) -> str:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, input=given, capture_output=True, text=True, errors="replace")
        return done.stdout if done.returncode == 0 else ""

    blobs = {}
    for line in git("log", "--format=", "--raw", "--no-abbrev", "--no-renames", "--", "*.json").splitlines():
        about, _, path = line.partition("\t")
        blob = about.split(" ")[3]
        if set(blob) != {"0"}:
            blobs.setdefault(blob, Path(path).name)
    return [(name, git("cat-file", "blob", blob)) for blob, name in blobs.items()]


def table(found: Sequence[Point]) -> "Table":
    """For people: a line a measurement, the ratio to the one before of the same case and machine."""
    from rich.table import Table

    result = Table(box=None, header_style="", title="committed results of fastdd", title_justify="left")
    for name in ("case", "machine", "date", "commit", "median", "to before", "x torch"):
        result.add_column(name, justify="left" if name in ("case", "machine", "commit") else "right", no_wrap=True)
    before: Point | None = None
    for point in found:
        same = before is not None and (before.case, before.machine) == (point.case, point.machine)
        commit = "-" if point.commit is None else point.commit[:9] + point.commit[40:]
        result.add_row(
            "" if before is not None and before.case == point.case else point.case,
            "" if same else point.machine,
            point.utc[:10],
            commit,
            _time(point.median_us),
            f"{before.median_us / point.median_us:.2f}x" if same else "",
            "" if point.speedup is None else f"{point.speedup:.2f}",
        )
        before = point
    return result


def draw(path: str | os.PathLike, found: Sequence[Point]) -> int:
    """A PNG file: a row a case, our medians on each machine, the older ones smaller and joined to the newer; and beside
    it, of cases that were measured twice or more on a machine, the medians over time. Returns how many these are.
    """
    from matplotlib.figure import Figure

    by_case: dict[str, dict[str, list[Point]]] = {}
    for point in found:
        by_case.setdefault(point.case, {}).setdefault(point.machine, []).append(point)
    machines = list(dict.fromkeys(point.machine for point in found))
    several = [case for case, of in by_case.items() if max(map(len, of.values())) > 1]
    shown = sorted(several, key=lambda case: -sum(map(len, by_case[case].values())))[:_MOST_PANELS]
    height = max(4.0, _ROW * len(by_case) + 1.2, _PANEL * -(-len(shown) // 2) + 0.6)
    figure = Figure(figsize=(15 if shown else 9, height), dpi=_DPI, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(9, 6)) if shown else (figure, None)
    _rows(left.subplots(), by_case, machines)
    if right is not None:
        panels = list(right.subplots(max(-(-len(shown) // 2), int(height / _PANEL)), 2, squeeze=False).flat)
        for case, axes in zip(sorted(shown), panels, strict=False):
            _over_time(axes, case, by_case[case], machines)
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))
    return len(several)


def _rows(axes: Any, by_case: dict[str, dict[str, list[Point]]], machines: Sequence[str]) -> None:
    for place, of in enumerate(by_case.values()):
        for machine, some in of.items():
            style, ms = _style(machines.index(machine)), [point.median_us / 1e3 for point in some]
            axes.plot(ms, [place] * len(ms), color=style["color"], linewidth=1)
            axes.scatter(ms[:-1], [place] * (len(ms) - 1), s=9, **style)
            axes.scatter(ms[-1:], [place], s=34, **style)
    axes.set_yticks(range(len(by_case)), list(by_case), fontsize=7)
    axes.set_ylim(len(by_case) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("median, ms; small: earlier")
    axes.tick_params(axis="x", labelsize=8, top=True, labeltop=True)
    axes.grid(True, linewidth=0.3)
    axes.set_title("committed results of fastdd, by case and machine", fontsize=10)
    axes.figure.legend(handles=_legend(machines), loc="outside lower left", fontsize=8, frameon=False)


def _over_time(axes: Any, case: str, of: dict[str, list[Point]], machines: Sequence[str]) -> None:
    from datetime import datetime

    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    for machine, some in of.items():
        when = [datetime.strptime(point.utc, "%Y-%m-%dT%H:%M:%SZ") for point in some]
        axes.plot(
            when,
            [point.median_us / 1e3 for point in some],
            markersize=4,
            linewidth=1,
            **_style(machines.index(machine)),
        )
    axes.set_title(case, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms", fontsize=7)
    axes.margins(x=0.08)
    locator = AutoDateLocator(minticks=2, maxticks=4)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.tick_params(labelsize=7)
    axes.grid(True, linewidth=0.3)


def _style(number: int) -> dict[str, str]:
    return {"color": _COLORS[number % len(_COLORS)], "marker": _MARKS[number % len(_MARKS)]}


def _legend(machines: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], markersize=5, label=name, **_style(number)) for number, name in enumerate(machines)]


def _time(us: float) -> str:
    return f"{us:.1f} us" if us < 1e3 else f"{us / 1e3:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def as_json(found: Sequence[Point]) -> str:
    """For ``--json``."""
    return json.dumps({"schema": 1, "rows": [vars(point) for point in found]}, indent=1) + "\n"
