"""What a run with replaced functions comes to: a table, or rows for a file."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdd.compat.hook import substitutes
from fastdd.compat.hook.counted import Entry
from fastdd.compat.shared.randomness import mode

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Summary:
    """Of the names that a script's modules define and this package knows.

    Attributes:
        rows: a name each: ``name``, ``module``, ``ours`` (what replaced it; None if it was left alone), ``calls``,
            ``seconds`` (inside them), ``checked`` and ``agreed`` (calls compared with the original), ``original``
            (calls that the original took), ``notes``.
        seconds: since the hook was made.
        rng: mode of the draws.
    """

    rows: list[dict[str, Any]]
    seconds: float
    rng: str

    @classmethod
    def of(cls, entries: Sequence[Entry], seconds: float) -> "Summary":
        return cls([_row(entry) for entry in entries], seconds, mode())

    @property
    def differing(self) -> list[str]:
        """Names that went back to the original because a comparison failed."""
        return [row["name"] for row in self.rows if row["agreed"] < row["checked"]]

    def notices(self) -> list[str]:
        """What a reader should know besides the table."""
        said = [
            "wandb is not installed: a stand-in took its place, and nothing was logged"
            if package == "wandb"
            else f"{package} is not installed: fastdd's substitute for what such scripts use of it took its place"
            for package in substitutes.in_use()
        ]
        if not self.rows:
            said.append("no module that the script imports defines functions that fastdd knows: nothing was replaced")
        if self.differing:
            names = ", ".join(self.differing)
            said.append(f"differs from the original, which was used instead: {names}")
        return said

    def table(self) -> "Table":
        """Rows as a table for rich."""
        from rich.table import Table

        shown = Table(title=f"replaced by fastdd, rng {self.rng}, {self.seconds:.1f} s in all", title_justify="left")
        shown.box = None
        for column in ("name", "module", "replaced by"):
            shown.add_column(column, no_wrap=True)
        for column in ("calls", "seconds", "agreed"):
            shown.add_column(column, justify="right", no_wrap=True)
        shown.add_column("", overflow="fold")
        for row in self.rows:
            checked = f"{row['agreed']}/{row['checked']}" if row["checked"] else "-"
            figures = (str(row["calls"]), f"{row['seconds']:.2f}", checked) if row["ours"] else ("-", "-", "-")
            ours = row["ours"] or "left alone"
            shown.add_row(row["name"], row["module"], ours, *figures, "; ".join(row["notes"]))
        return shown

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        console = Console(file=text, width=140, highlight=False, markup=False)
        if self.rows:
            console.print(self.table())
        for notice in self.notices():
            console.print(notice, soft_wrap=True)
        return text.getvalue()


def _row(entry: Entry) -> dict[str, Any]:
    notes = []
    if entry.why:
        notes.append(entry.why)
    if entry.copy_of:
        notes.append(f"a copy of {entry.copy_of}")
    notes += [f"{count} calls by the original: {why}" for why, count in entry.passed_on.items() if why != entry.why]
    if entry.unchecked:
        notes.append(f"not compared: {entry.unchecked}")
    if entry.replacement is not None and not entry.published:
        notes.append("its text is not a published one: first calls compared")
    return {
        "name": entry.name,
        "module": entry.module,
        "ours": entry.replacement and entry.replacement.ours.replace(":", "."),
        "calls": entry.calls,
        "seconds": round(entry.seconds, 4),
        "checked": entry.checked,
        "agreed": entry.agreed,
        "original": sum(entry.passed_on.values()),
        "notes": notes,
    }
