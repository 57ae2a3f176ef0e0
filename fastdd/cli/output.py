"""Standard output that may be closed, full or plain ASCII: what is printed never ends the work that it is about."""

import os
import sys
from contextlib import suppress
from typing import Any


def open_closed_streams() -> None:
    """Give standard output and error, where the shell closed them, a place that takes all."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  for as long as the process lives


def tell(text: str) -> None:
    """A line on standard error, in one write: what other processes say there comes before or after it."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Output:
    """Takes the place of ``sys.stdout``: after the first write that fails it is silent, and says why at the end.

    What the encoding does not have becomes a question mark.
    """

    def __init__(self):
        self._stream, self._words, self._error = sys.stdout, sys.stdout, None
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="replace")

    def __enter__(self) -> "Output":
        sys.stdout = self
        return self

    def __exit__(self, *error: object) -> None:
        if sys.stdout is self:
            sys.stdout = self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            if self._error is None:
                self._words.write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        try:
            if self._error is None:
                self._stream.flush()
        except OSError as error:
            self._fail(error)

    def words_to_stderr(self) -> None:
        """From here on words go to standard error: standard output is the file of results."""
        self._words = sys.stderr

    def finish(self) -> str | None:
        """None if all could be written; else what to say of it: nothing where the reader went away (`... | head`)."""
        self.flush()
        if self._error is None:
            return None
        if isinstance(self._error, BrokenPipeError):
            return ""
        return f"cannot write to standard output: {self._error.strerror}; files were written"

    def _fail(self, error: OSError) -> None:
        self._error = error
        with suppress(OSError, ValueError):  # what is not a file has no number
            # What the stream still holds goes there; Python would complain of it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
