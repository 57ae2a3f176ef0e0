"""What campaigns count: how the product took each of thousands of hostile inputs, stage by stage."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

# How a case can end, and whether that is a fault of the product.
OUTCOMES = {
    "right": False,  # the result that it has to be, checked
    "clear error": False,  # one line that names the value and the cure, a status that is not 0
    "traceback": True,  # or a line that says "this is a bug"
    "crash": True,  # ended by a signal that nobody sent, or with a status that no command has
    "hang": True,
    "memory": True,  # beyond the limit that the campaign sets
    "unclear error": True,  # one line that names no file or value, or speaks of Python's own types
    "silent difference": True,  # status 0 and another result; litter; something of the user's gone
}


class Tally:
    """Counts of outcomes by stage; faults are kept in words.

    ``counts[stage][outcome]`` is a number; ``faults`` is a list of (stage, outcome, what): what one does to see it.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counter] = defaultdict(Counter)
        self.faults: list[tuple[str, str, str]] = []

    def count(self, stage: str, outcome: str, what: str = "") -> None:
        """Add one case. ``what``: how to see it again; needed for a fault."""
        if OUTCOMES[outcome]:
            assert what, "a fault is kept in words"
            self.faults.append((stage, outcome, what))
        self.counts[stage][outcome] += 1

    def faults_of(self, *stages: str) -> list[str]:
        """The faults of stages, a line each: ``assert not tally.faults_of(stage)`` ends a campaign's test."""
        return [f"{stage}: {outcome}: {what}" for stage, outcome, what in self.faults if stage in stages]

    def add(self, other: dict) -> None:
        """Add what :meth:`as_dict` of another process made."""
        for stage, counts in other["stages"].items():
            self.counts[stage].update(counts)
        self.faults.extend(tuple(fault) for fault in other["faults"])

    def as_dict(self) -> dict:
        return {
            "stages": {stage: dict(counts) for stage, counts in self.counts.items()},
            "faults": [list(fault) for fault in self.faults],
        }

    def write(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.as_dict(), indent=1) + "\n")

    def table(self) -> str:
        """One table: a row a stage, a column an outcome, the sums last."""
        total = sum(self.counts.values(), Counter())
        rows = [("stage", "cases", *OUTCOMES)]
        for stage, counts in [*sorted(self.counts.items()), ("all", total)]:
            rows.append((stage, str(sum(counts.values())), *(str(counts[outcome]) for outcome in OUTCOMES)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(_line(row, widths) for row in rows)


def _line(row: Iterable[str], widths: list[int]) -> str:
    first, *numbers = (
        cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join((first, *numbers))
