"""The table of all records, in ``docs/records.md``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastdd.bench.records.record import counts_for, met, verdict
from fastdd.bench.records.targets import TARGETS, Target, Threshold

PAGE = Path(__file__).resolve().parents[2] / "docs" / "records.md"
_BEGIN, _END = "<!-- records: written by python -m fastdd.bench.records table -->", "<!-- end of records -->"
_COLUMNS = (
    *("record", "accuracy", "DEO_A", "met", "distilled, s", "everything, s", "checked, s"),
    *("of the first row's", "machine", "commit"),
)


def page(text: str, found: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The page with the tables of these records in place of those that it has.

    Raises:
        ValueError: a page without the lines between which they stand.
    """
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError(f"the page needs the lines {_BEGIN!r} and {_END!r}, once each")
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    return f"{before}{_BEGIN}\n\n{tables(found)}\n{_END}{after}"


def tables(found: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A table a target that has records, newest record last; a record counts for every target of what it made."""
    parts = []
    for target in TARGETS.values():
        own = [(folder, record) for folder, record in found if counts_for(record, target)]
        if own:
            parts.append(f"### {target.name}\n\n{_about(target)}\n\n{_table(own, target)}\n")
    return "\n".join(parts) if parts else "No records yet.\n"


def _about(target: Target) -> str:
    wanted = " and ".join(f"{_NAMES[one.figure]} {one.side} {one.value:g} %" for one in target.thresholds)
    published = ", ".join(f"{_NAMES[name]} {value:g}" for name, value in target.published)
    published = f"; published: {published} ({target.source})" if published else f" ({target.source})"
    what = f"{target.method.upper()} with debias {target.debias} on {target.dataset}, IPC {target.ipc}"
    return f"{what}: {wanted}{published}."


_NAMES = {"accuracy": "accuracy", "deo_a": "DEO_A"}


def _table(found: Sequence[tuple[str, Mapping[str, Any]]], target: Target) -> str:
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---|--:|--:|--|--:|--:|--:|--:|---|---|"]
    first = cost(found[0][1])
    for folder, record in found:
        lines.append(f"| {' | '.join(_cells(folder, record, target, first))} |")
    return "\n".join(lines)


def _cells(folder: str, record: Mapping[str, Any], target: Target, first: float) -> list[str]:
    rows, part = record["seeds"], cost(record) / first
    share = "1" if part == 1 else f"{100 * part:.2g} % (1 / {1 / part:.3g})"
    timed = record["timed_steps"]
    return [
        f"`{folder}`",
        _figure(record, "accuracy"),
        _figure(record, "deo_a"),
        _met(record, target),
        ("about " if timed else "") + _times(rows, "distillation") + (f", {timed} steps timed" if timed else ""),
        _times(rows, "everything"),
        _times(rows, "evaluation"),
        share,
        _machine(rows),
        _commit(rows),
    ]


def cost(record: Mapping[str, Any]) -> float:
    """Mean seconds of distillation that rows are compared by: on a CPU the processor's, on a GPU the wall's."""
    on_gpu = any(row["machine"]["driver"] for row in record["seeds"])
    name = "seconds" if on_gpu else "cpu_seconds"
    return float(np.mean([row["distillation"][name] for row in record["seeds"]]))


def _figure(record: Mapping[str, Any], figure: str) -> str:
    values = [row.get(figure) for row in record["seeds"]]
    if None in values:
        return "-"
    found = verdict(values, Threshold(figure, "at least", 0.0))
    return f"{found.mean:.2f}" + (f" ± {found.half:.2f}" if found.half is not None else "")


def _met(record: Mapping[str, Any], target: Target) -> str:
    answer = met(record, target)
    if answer is None:
        return "not checked" if record["timed_steps"] else "one seed"
    ps = [verdict([row[one.figure] for row in record["seeds"]], one).p for one in target.thresholds]
    told = ", ".join(f"{p:.2g}" for p in ps)
    return f"{'yes' if answer else 'no'}, p = {told}; {len(record['seeds'])} seeds x {record['nets']} networks"


def _times(rows: Sequence[Mapping[str, Any]], part: str) -> str:
    """Mean seconds of the wall and, after them, of the processor."""
    times = [row.get(part) for row in rows]
    if None in times:
        return "-"
    wall, cpu = (float(np.mean([one[name] for one in times])) for name in ("seconds", "cpu_seconds"))
    return f"{wall:,.1f} (processor {cpu:,.1f})"


def _machine(rows: Sequence[Mapping[str, Any]]) -> str:
    names = {f"{row['machine']['device']}, {row['machine']['threads']} threads" for row in rows}
    return "; ".join(sorted(names)).replace(", 1 threads", ", 1 thread")


def _commit(rows: Sequence[Mapping[str, Any]]) -> str:
    gits = [row["machine"]["git"] for row in rows]
    names = {
        "not of a checkout" if git is None else git["commit"][:8] + (" with changes" * git["dirty"]) for git in gits
    }
    return "; ".join(sorted(names))
