"""What an audit found: its file in a run's folder, tables of 80 columns, and lines of words."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastdd.core import reading
from fastdd.data import SyntheticSet
from fastdd.evaluation.audit import Audit, ClassOfData, ClassOfSet
from fastdd.report.results import document, read_json

if TYPE_CHECKING:
    from rich.table import Table

AUDIT = "audit.json"  # of a run's folder: the last audit of its set
# Rows of a table that a reader takes in.
_MOST_CLASSES = 30
LEGEND = {
    "data, set": "images of the class's majority, percent: of the training images, and by the probe of the set's",
    "confl.": "images that the probe takes to be of another group than that, percent",
    "λ": "where the mean of the class lies: 0 at the optimum of vanilla matching, 1 at FairDD's; ± over networks",
    "off": "how far from the line through both, in units of their distance",
    "covered, others": "real images of the majority, and of other groups, with a synthetic one near, percent; in "
    "brackets what as many random real images cover",
}


def audit_document(found: Audit, synthetic: SyntheticSet | None = None, **meta: Any) -> dict[str, Any]:
    """One row, the audit as :class:`fastdd.evaluation.audit.Audit` has it, with what made it and of which set."""
    of = {} if synthetic is None else {"set_digest": set_digest(synthetic)}
    return document([asdict(found)], **of, **meta)


def set_digest(synthetic: SyntheticSet) -> str:
    """SHA-256 (hex) of a set's images and labels."""
    sha = hashlib.sha256()
    for tensor in (synthetic.images, synthetic.labels):
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def read_audit(path: str | os.PathLike, synthetic: SyntheticSet | None = None) -> Audit | None:
    """The audit in a file that :func:`audit_document` is in; None where it is of another set than ``synthetic``.

    Raises:
        ValueError: naming the file: it is none.
    """
    from pydantic import TypeAdapter, ValidationError

    content = read_json(path)
    with reading.damage_of(path, kind=ValueError):
        if len(content["rows"]) != 1:
            raise ValueError(f"it has {len(content['rows'])} audits, not one")
        try:
            found = TypeAdapter(Audit).validate_python(content["rows"][0])
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{place}: {first['msg']}".removeprefix(": ").replace("Value error, ", "")) from None
    if synthetic is not None and content["meta"].get("set_digest") != set_digest(synthetic):
        return None
    return found


# A column of figures of a class: its title, and its cell from what is found of the data and of the set.
_Column = tuple[str, Callable[[ClassOfData, ClassOfSet], str]]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:z.{digits}f}"


def _position(one: ClassOfSet) -> str:
    return "-" if one.position is None else f"{one.position:z.2f} ± {one.position_std:.2f}"


def coverage(data: ClassOfData, made: ClassOfSet) -> tuple[str, str]:
    """Of the majority and of other groups (their mean), percent, beside what random images cover."""
    kinds = ([data.majority], [g for g, count in enumerate(data.counts) if count and g != data.majority])
    cells = []
    for groups in kinds:
        pairs = [(made.coverage[g], made.coverage_of_random[g]) for g in groups]
        known = [pair for pair in pairs if None not in pair]
        ours, by_chance = (sum(part) / len(known) for part in zip(*known, strict=True)) if known else (None, None)
        cells.append("-" if ours is None else f"{_percent(ours)} ({_percent(by_chance)})")
    return cells[0], cells[1]


_OF_SET: tuple[_Column, ...] = (
    ("set", lambda data, made: _percent(made.majority_share)),
    ("confl.", lambda data, made: _percent(made.conflicting)),
    ("λ", lambda data, made: _position(made)),
    ("off", lambda data, made: _number(made.residual, 1)),
    ("covered", lambda data, made: coverage(data, made)[0]),
    ("others", lambda data, made: coverage(data, made)[1]),
)


def audit_lines(found: Audit) -> tuple[list[str], list[list[str]]]:
    """Titles of columns, and a line a class, in their order."""
    header = ["class", "majority", "data"]
    made = found.of_set
    header += [title for title, _ in _OF_SET] if made else ["images", *(found.data.group_names)]
    lines = []
    for number, one in enumerate(found.data.classes):
        line = [one.name, found.data.group_names[one.majority] if any(one.counts) else "-"]
        line.append(f"{100 * one.majority_share:.1f}")
        if made:
            line += [cell(one, made.classes[number]) for _, cell in _OF_SET]
        else:
            line += [f"{sum(one.counts):,}", *(f"{count:,}" for count in one.counts)]
        lines.append(line)
    return header, lines


def loss_lines(found: Audit) -> tuple[list[str], list[list[str]]]:
    """Titles of columns, and a line a distance: losses of the set, and whether FairDD's bounds the vanilla one."""
    header = ["distance", "L", "L_FairDD", "L <= L_FairDD", "to mean of groups", "to median"]
    lines = []
    for one in found.of_set.bounds if found.of_set else ():
        figures = [f"{value:.4g}" for value in (one.vanilla, one.fair, one.to_mean, one.to_median)]
        lines.append([one.distance, *figures[:2], "yes" if one.holds else "no", *figures[2:]])
    return header, lines


def audit_tables(found: Audit, title: str | None = None, *, full: bool = False) -> list["Table"]:
    """The classes, then losses and their bounds (of a set) or what fake images make of the data, as rich tables.

    Of more than 30 classes the 30 whose majorities are largest, in the set where there is one; ``full``: all of them.
    """
    made = found.of_set
    header, lines = audit_lines(found)
    if not made:
        header, lines = header[:4], [line[:4] for line in lines]  # groups can be many: data check lists them
    if len(lines) > _MOST_CLASSES and not full:
        title = f"{title}: the {_MOST_CLASSES} most biased of {len(lines)} classes"
        shares = [one.majority_share or 0 for one in (made or found.data).classes]
        lines = [lines[n] for n in sorted(range(len(lines)), key=lambda n: -shares[n])[:_MOST_CLASSES]]
    tables = [_table(header, lines, 2, title)]
    if made:
        tables.append(_table(*loss_lines(found), 1, f"matching losses, mean over {made.nets} random networks"))
    else:
        rows = [
            [one.use, f"{one.images:,}", _number(one.information), _number(one.with_source)]
            for one in found.data.augmented
        ]
        titles = ["fake images", "images", "I(Y;B)", "I(Y;(B,G))"]
        tables.append(_table(titles, rows, 1, "with fake images, bits (B: group, G: real or fake)"))
    return tables


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], names: int, title: str | None) -> "Table":
    from rich.table import Table

    result = Table(title=title, title_justify="left", padding=(0, 1), box=None, pad_edge=False)
    for number, name in enumerate(header):
        left = number < names
        result.add_column(
            name,
            justify="left" if left else "right",
            no_wrap=True,
            overflow="fold",
        )
    for line in lines:
        result.add_row(*line)
    return result


def audit_summary(found: Audit) -> list[str]:
    """What there is to say of all classes together, a line each.

    >>> import fastdd
    >>> audit_summary(fastdd.audit(fastdd.data.load("c-digits")))[0]
    'data: 1,297 images, 89.6 % of them of the majorities of their classes; I(Y;B) 2.52 bits'
    """
    data, made = found.data, found.of_set
    lines = [
        f"data: {data.images:,} images, {100 * data.majority_share:.1f} % of them of the majorities of their classes; "
        f"I(Y;B) {data.information:.2f} bits"
    ]
    if made is None:
        ratios = ", ".join(f"{100 * ratio:.3g} % at IPC {ipc}" for ipc, ratio in data.condensed)
        return [*lines, f"condensed ratio: {ratios}"]
    lines.append(f"set: {made.images:,} images; condensed ratio {100 * made.condensed_ratio:.3g} %")
    if made.probe.tells:
        probe = made.probe
        lines.append(
            f"by the group probe (accuracy {probe.accuracy:.1f} % on {probe.held_out:,} held-out images, guessing "
            f"{probe.guessing:.1f} %): {100 * made.majority_share:.1f} % are of the majorities, "
            f"{100 * made.conflicting:.1f} % of the images are taken for others; I(Y;B) {made.information:.2f} bits "
            f"(by chance {made.by_chance:.2f})"
        )
    if made.position is not None:
        lines.append(f"λ, mean over classes: {made.position:z.2f}")
    return lines
