"""Text from outside, as it can be shown."""

import re
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


def is_unicode(name: str) -> bool:
    """Whether a name is text: those of files that are not UTF-8 have halves of characters."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def shown(value: Any) -> str:
    """A value from a file as a message shows it: its beginning."""
    written = repr(value)
    return written if len(written) <= _SHOWN else f"{written[:_SHOWN]}..."
