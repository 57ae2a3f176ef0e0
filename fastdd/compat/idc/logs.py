"""IDC's ``Logger`` and ``TimeStamp``."""

import time
from pathlib import Path

import numpy as np

__all__ = ["Logger", "TimeStamp"]


class Logger:
    """Prints, and writes to ``log.txt`` in a folder."""

    def __init__(self, path: str | Path):
        self.logger = open(Path(path) / "log.txt", "w", encoding="utf-8")  # noqa: SIM115

    def __call__(self, string: str, end: str = "\n", print_: bool = True) -> None:
        if print_:
            print(string, end=end)
            self.logger.write(f"{string}\n" if end == "\n" else f"{string} ")
            self.logger.flush()


class TimeStamp:
    """Seconds between calls of :meth:`stamp`, by name; :meth:`flush` prints and forgets them."""

    def __init__(self, print_log: bool = True):
        self.print_log, self.times = print_log, {}
        self.set()

    def set(self) -> None:
        """Start the clock."""
        self.prev = time.time()

    def stamp(self, name: str = "") -> None:
        """Add the seconds since the last call to ``name``."""
        if self.print_log:
            self.times.setdefault(name, []).append(time.time() - self.prev)
            self.set()

    def flush(self) -> None:
        """Print sums, means, standard deviations and counts."""
        if self.print_log:
            for name, times in self.times.items():
                mean, std = np.mean(times), np.std(times)
                print(f"{name}: {sum(times):.4f}s (avg {mean:.4f}s, std {std:.4f}, count {len(times)})")
            self.times = {}
