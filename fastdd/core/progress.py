"""Where long work is, as one line: how much is done, how fast it goes, and how long it will take."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_BAR = 24
# Of a title that gives way to figures, and the first of the parts that do before it.
_TITLE, _DROPPED_FIRST = 12, 3


@dataclass
class Work:
    """Long work: how far it is, and since when.

    Attributes:
        title: what it is.
        done, total: how much; None while no one knows.
        note: what else there is to say.
        rate: units a second; None: what this object has seen since the first :meth:`update`.
    """

    title: str
    done: int | None = None
    total: int | None = None
    note: str = ""
    rate: float | None = None
    _began: float = field(default_factory=time.monotonic)
    _first: tuple[float, int] | None = None

    def update(self, done: int, total: int, note: str = "", rate: float | None = None) -> None:
        """It is here now."""
        if self._first is None or done < self._first[1] or total != self.total:  # other work under the same title
            self._first, self.rate = (time.monotonic(), done), None
        self.done, self.total, self.note = done, total, note
        seconds = time.monotonic() - self._first[0]
        own = (done - self._first[1]) / seconds if seconds > 0 and done > self._first[1] else None
        self.rate = rate or own or self.rate

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float | None:
        """Seconds that it will still take; None while that is not known."""
        if self.done is None or self.total is None or not self.rate:
            return None
        return max(0, self.total - self.done) / self.rate

    def line(self, width: int | None = None, memory: str = "", *, bar: bool = False) -> str:
        """All of it, or what is most needed of it, in ``width`` columns.

        >>> work = Work("dm c-digits")
        >>> work.update(50, 200, "loss 1.2", 10.0)
        >>> work.line()
        'dm c-digits: 50/200 (25 %), 0:00 gone, 0:15 left, 10.00 it/s, loss 1.2'
        >>> work.line(40)
        'dm c-digits: 50/200 (25 %), 0:15 left'
        """
        if self.done is None or self.total is None:
            return fit([(0, f"{clock(self.elapsed)} gone")], width, self.title)
        share = f" ({100 * self.done // self.total} %)" if self.total else ""
        parts = [(0, f"{self.done:,}/{self.total:,}{share}"), (4, f"{clock(self.elapsed)} gone")]
        if self.left is not None:
            parts.append((1, f"{clock(self.left)} left"))
        if self.rate:
            parts.append((2, f"{self.rate:.2f} it/s"))
        parts += [(3, self.note)] if self.note else []
        parts += [(5, memory)] if memory else []
        front = f"{self.title} "
        if bar:
            filled = _BAR if not self.total else round(_BAR * min(1, self.done / self.total))
            drawn = f"{front}{'━' * filled}{'╌' * (_BAR - filled)} "
            text = drawn + ", ".join(text for _, text in parts)
            if width is None or _columns(text) <= width:
                return text
        return fit(parts, width, self.title)


def fit(parts: Sequence[tuple[int, str]], width: int | None, title: str) -> str:
    """Parts joined by commas after a title; where there is no room, first without those from 3 on, the largest first,
    then with less of the title, then without the others. Figures are never cut."""
    kept, room = list(parts), len(title)

    def text() -> str:
        front = f"{title[:room]}: " if room else ""
        return front + ", ".join(part for _, part in kept)

    while width is not None and _columns(text()) > width:
        least = max(kept, key=lambda part: part[0])
        if least[0] >= _DROPPED_FIRST or (room <= _TITLE and least[0] > 0):
            kept.remove(least)
        elif room > 0:
            room -= 1
        else:
            break
    return text()


def _columns(text: str) -> int:
    """Of a terminal; wide characters take two."""
    from rich.cells import cell_len  # with the first line, not with fastdd

    return cell_len(text)


def clock(seconds: float) -> str:
    """
    >>> clock(75), clock(7265), clock(200_000)
    ('1:15', '2:01:05', '2 d 7:33:20')
    """
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    text = f"{hours}:{minutes:02}:{whole % 60:02}" if whole >= 3600 else f"{minutes}:{whole % 60:02}"
    return f"{days} d {text}" if days else text


class Lines:
    """Plain lines on standard error: the first after ``first`` seconds, others ``every`` so many seconds.

    Args:
        work: what they are of.
        first, every: seconds; 0 for no lines.
    """

    def __init__(self, work: Work, first: float, every: float):
        self._work, self._every = work, every
        self._due = work.elapsed + min(first, every)
        self._said = False

    def update(self, memory: str = "") -> None:
        """Say a line, where one is due."""
        if self._every <= 0 or self._work.elapsed < self._due:
            return
        self._due = self._work.elapsed + self._every
        self._said = True
        print(self._work.line(None, memory), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Say how long it took, if there was anything said."""
        if self._said:
            print(f"{self._work.title}: done in {clock(self._work.elapsed)}", file=sys.stderr, flush=True)
