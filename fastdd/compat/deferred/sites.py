"""Where scripts call networks, and what came of it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

_PACKAGE = str(Path(__file__).parents[2]) + os.sep
_TORCH = str(Path(torch.__file__).parent) + os.sep
# Files of this package, whose frames are no script's.
OWN = frozenset(str(path) for path in Path(__file__).parent.glob("*.py"))
# Evaluations that gain nothing, after which a place's calls are made at once.
_PATIENCE = 6
# Evaluations that are done both ways.
CHECKS = 2
_state: dict[str, Any] = {"on": False, "why": "", "checks": [], "escape": None}


@dataclass(eq=False)
class Site:
    """A line of the script that calls a network.

    Attributes:
        calls: recorded; evaluated: whose results were needed; joined: computed with others'.
        idle: evaluations in a row in which it gained nothing.
        refusal: why calls were made at once; empty if they were not.
        why: operations that asked for results before more could be joined, and how often.
    """

    file: str
    line: int
    calls: int = 0
    evaluated: int = 0
    joined: int = 0
    checks: int = 0
    idle: int = 0
    refusal: str = ""
    why: dict[str, int] = field(default_factory=dict)

    @property
    def defers(self) -> bool:
        return _state["on"] and self.idle < _PATIENCE


_sites: dict[tuple[str, int], Site] = {}


def start(on: bool) -> None:
    """Whether calls from now on are recorded; forgets what was seen before."""
    _sites.clear()
    _state.update(on=on, why="", checks=[], escape=None)


def turn_off(why: str) -> None:
    """Record nothing more in this run."""
    _state.update(on=False, why=why)


def caller(frame: FrameType | None) -> Site | None:
    """The line that calls, unless it is this package's."""
    if not _state["on"]:
        return None
    while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(_PACKAGE):
        return None
    key = frame.f_code.co_filename, frame.f_lineno
    if key not in _sites:
        _sites[key] = Site(*key)
    return _sites[key]


def escaped(function: Callable) -> None:
    """Note the operation that is about to ask for all that is pending."""
    _state["escape"] = getattr(function, "__name__", str(function))


def evaluated(places: set[Site], together: set[Site]) -> None:
    """Note an evaluation of calls of ``places``, of which those of ``together`` were not made one by one."""
    for site in places:
        site.evaluated += 1
        site.joined += site in together
        site.idle = 0 if together else site.idle + 1
        if not together and _state["escape"]:
            site.why[_state["escape"]] = site.why.get(_state["escape"], 0) + 1
    _state["escape"] = None


def agreed(difference: float) -> None:
    """Note a comparison that came out well."""
    _state["checks"].append(difference)


def rows() -> list[dict[str, Any]]:
    """Of every line that called a network: where, calls that were recorded, evaluations that needed them, and those
    of them in which they were not made one by one."""
    return [
        {"file": site.file, "line": site.line, "calls": site.calls, "evaluated": site.evaluated, "joined": site.joined}
        for site in seen()
    ]


def seen() -> list[Site]:
    """All lines that called a recognised network."""
    return [*_sites.values()]


def comparisons() -> tuple[list[float], str]:
    """Differences of the comparisons that agreed, and what differed; empty if nothing did."""
    return _state["checks"], _state["why"]
