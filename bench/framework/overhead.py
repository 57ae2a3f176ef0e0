"""What protected groups cost: steps with FairDD against the same without, beside the ratios that its paper prints.

FairDD, Tables 13 (C-MNIST, by groups) and 14 (CelebA, 2 classes, by resolution), IPC 10, on another GPU: minutes of
whole runs, DC's with the training of networks between matching steps. So ratios compare, not minutes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]


class Published(NamedTuple):
    """Time and memory with groups, as ratios to those without."""

    time: float
    memory: float


# (case with groups, case without, what of the shape tells the rows apart, published by it, steps of a published run)
_DM_STEPS, _DC_STEPS = 20_000, 10_000
_TABLES = (
    (
        "scale/groups",
        "scale/groups",
        "groups",
        {
            groups: Published(minutes / 26.2, 1.0)
            for groups, minutes in ((2, 31.75), (4, 33.2), (6, 35.2), (8, 36.5), (10, 36.9))
        },
        _DM_STEPS,
    ),
    (
        "scale/groups-dc",
        "scale/groups-dc",
        "groups",
        {
            groups: Published(minutes / 70, mb / 2143)
            for groups, minutes, mb in (
                (2, 94, 2345),
                (4, 128, 2369),
                (6, 152, 2393),
                (8, 181.8, 2419),
                (10, 210, 2443),
            )
        },
        _DC_STEPS,
    ),
    (
        "scale/size-dm+fairdd",
        "scale/size-dm",
        "pixels",
        {32: Published(11.35 / 10.93, 1.0), 64: Published(12.2 / 11.18, 1.0), 96: Published(14.62 / 12.83, 1.0)},
        _DM_STEPS,
    ),
    (
        "scale/size-dc+fairdd",
        "scale/size-dc",
        "pixels",
        {
            32: Published(34.65 / 32.98, 2479 / 2413),
            64: Published(47.07 / 43.67, 8841 / 8525),
            96: Published(86.88 / 82.37, 19437 / 18855),
        },
        _DC_STEPS,
    ),
)


class Overhead(NamedTuple):
    """A step with groups against the same without, by one backend.

    Attributes:
        case, backend: of the row with groups. of: ``groups=10`` or ``pixels=64``.
        time, memory: ratios; None where it was not measured.
        minutes: of a published run's matching steps, with groups, here.
        published: the paper's ratios.
    """

    case: str
    of: str
    backend: str
    time: float
    memory: float | None
    minutes: float
    published: Published


def overheads(rows: Sequence[Row]) -> list[Overhead]:
    """Of all pairs of rows that are there and whose results match."""
    found = []
    for fair, plain, name, published, steps in _TABLES:
        without = {
            (row["backend"], _value(row, name) if fair != plain else 0): row
            for row in rows
            if row["case"] == plain and row["match"] and not row["shape"]["groups"]
        }
        for row in rows:
            if row["case"] != fair or not row["match"]:
                continue
            value = _value(row, name)
            other = without.get((row["backend"], value if fair != plain else 0))
            if value not in published or other is None:
                continue
            peaks = row.get("peak_bytes"), other.get("peak_bytes")
            found.append(
                Overhead(
                    fair,
                    f"{name}={value}",
                    row["backend"],
                    row["median_us"] / other["median_us"],
                    None if None in peaks or not peaks[1] else peaks[0] / peaks[1],
                    row["median_us"] * steps / 60e6,
                    published[value],
                )
            )
    return found


def _value(row: Row, name: str) -> int:
    return row["shape"]["image"][-1] if name == "pixels" else row["shape"]["groups"]


def overhead_table(found: Sequence[Overhead]) -> "Table":
    """Ratios to no groups, of time and memory, beside the paper's."""
    from rich.table import Table

    title = "FairDD against no groups (Tables 13 and 14 of its paper): ratios, published in brackets"
    result = Table(title=title, title_justify="left", box=None, header_style="")
    for number, name in enumerate(("case", "backend", "time", "peak memory", "minutes of a published run's matching")):
        result.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for one in found:
        memory = "-" if one.memory is None else f"{one.memory:.2f}"
        result.add_row(
            f"{one.case} {one.of}",
            one.backend,
            f"{one.time:.2f} ({one.published.time:.2f})",
            f"{memory} ({one.published.memory:.2f})",
            f"{one.minutes:.1f}",
        )
    return result
