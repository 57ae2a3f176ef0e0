"""How much a command says: words that any command takes, wherever they stand."""

import sys
import time

from fastdd.core import ranks
from fastdd.core.text import printable

# The words, and what they do. Taken off the command line before it is parsed.
EVERYWHERE = {
    "--quiet": "No progress; of what is printed only tables and warnings.",
    "--verbose": "Also tell what is done on the way, on standard error.",
    "--debug": "Show tracebacks of errors.",
}


class Talk:
    """How much is said.

    Attributes:
        quiet: no progress, and of what is printed only tables and warnings.
        verbose: also what is done on the way, on standard error.
    """

    def __init__(self) -> None:
        self.quiet = self.verbose = False
        self._began = time.monotonic()

    def begin(self, *, quiet: bool, verbose: bool) -> None:
        """At the start of a command."""
        self.quiet, self.verbose, self._began = quiet, verbose, time.monotonic()

    def more(self, text: str) -> None:
        """Say what only ``--verbose`` tells, on standard error of rank 0."""
        if self.verbose and ranks.rank() == 0:
            print(f"[{time.monotonic() - self._began:7.2f} s] {printable(text)}", file=sys.stderr, flush=True)


talk = Talk()
