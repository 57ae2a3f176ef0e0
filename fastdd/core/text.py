"""Text from outside, as it can be shown."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

# C0 and C1 controls but tab and newline, marks that turn the direction of what follows, and halves of characters, which
# names of files that are not UTF-8 have.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Of a value from a file, as a message shows it.
_SHOWN = 60


def printable(text: str) -> str:
    """``text`` with a mark in place of what a terminal would obey and a page can't hold.

    >>> printable("red\x1b[2J")
    'red\ufffd[2J'
    """
    return _HIDDEN.sub("\ufffd", text)


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` may be a slip of, whatever its case; None if there is none.

    >>> closest("Convnett", ["MLP", "ConvNet"])
    'ConvNet'
    """
    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), by_lower, 1)
    return by_lower[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to add to a refusal of ``name``: the known one that is closest, or nothing.

    >>> did_you_mean("iteration", ["ipc", "iterations"]), did_you_mean("x", ["ipc"])
    ('; did you mean iterations?', '')
    """
    close = closest(name, known)
    return "" if close is None else f"; did you mean {close}?"


def one_of(name: str, known: Iterable[str]) -> str:
    """What to say of a refusal of ``name``: all known ones, and the one that is closest.

    >>> one_of("dmm", ["dm", "dc"])
    'one of: dm, dc; did you mean dm?'
    """
    known = [*known]
    return f"one of: {', '.join(known)}{did_you_mean(name, known)}"


def listed(names: Iterable[str], word: str = "and") -> str:
    """Names in a sentence, the last one after ``word``.

    >>> listed(["dc", "dsa", "idc"]), listed(["kde", "own"], "or"), listed(["dm"])
    ('dc, dsa and idc', 'kde or own', 'dm')
    """
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last


def is_unicode(name: str) -> bool:
    """Whether a name is text: those of files that are not UTF-8 have halves of characters."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def shown(value: Any) -> str:
    """A value from a file as a message shows it: its beginning."""
    written = repr(value)
    return written if len(written) <= _SHOWN else f"{written[:_SHOWN]}..."
