"""What runs are called on a page: by what differs between them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastdd.report.record import Record

# Settings of a label that a reader takes in.
_MOST = 3
# Told by the label's beginning, or, of seeds, at its end.
_TOLD = ("method", "debias", "dataset", "ipc", "seed", "training", "use")


def labels(records: Sequence[Record]) -> list[str]:
    """What each record is called beside the others.

    The name that it was given; else its method and debias mode (a training's recipe and use), and its data set and IPC
    where they differ. Of records that are still called alike, the settings and options of their data that differ, then
    the seed, then the folder. One by itself goes by all that is known of it
    (:attr:`fastdd.report.record.Record.name`).
    """
    found = [record.title or record.name for record in records]
    if len(records) > 1:
        shown = [part for part in ("dataset", "ipc") if len({_about(record).get(part) for record in records}) > 1]
        found = [record.title or ", ".join([record.kind, *_parts(record, shown)]) for record in records]
    for ending in (_settings, _seed, _folder, _path):
        found = _told_apart(found, records, ending)
    return found


def title(records: Sequence[Record], names: Sequence[str]) -> str:
    """Of the page of ``records``, whose :func:`labels` are ``names``, with what they have in common."""
    if len(records) == 1:
        return records[0].title or records[0].name
    alike = [part for part in ("dataset", "ipc") if len({_about(record).get(part) for record in records}) == 1]
    common = ", ".join(_parts(records[0], alike))
    what = f"{len(names)} runs" if len(names) > 3 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{what}: {common}" if common else what


def _about(record: Record) -> dict[str, Any]:
    return record.config or (record.synthetic.metadata if record.synthetic else {})


def _parts(record: Record, names: Sequence[str]) -> list[str]:
    about = _about(record)
    return [f"IPC {about[name]}" if name == "ipc" else str(about[name]) for name in names if about.get(name)]


def _told_apart(names: list[str], records: Sequence[Record], ending: Any) -> list[str]:
    """Names, those that several records have with an ending each."""
    several = {name for name, count in Counter(names).items() if count > 1}
    found = list(names)
    for name in several:
        numbers = [number for number, one in enumerate(names) if one == name]
        endings = ending([records[number] for number in numbers])
        if len(set(endings)) > 1:
            for number, end in zip(numbers, endings, strict=True):
                found[number] = ", ".join(filter(None, (name, end)))
    return found


def _settings(records: Sequence[Record]) -> list[str]:
    given = [record.config | (record.data_options(record.dataset) if record.dataset else {}) for record in records]
    names = [name for name in dict.fromkeys(name for one in given for name in one) if name not in _TOLD]
    different = [name for name in names if len({repr(one.get(name)) for one in given}) > 1]
    more = [f"and {len(different) - _MOST} more"] if len(different) > _MOST else []
    return [
        ", ".join(
            [f"no {name}" if one.get(name) is None else f"{name} {one[name]}" for name in different[:_MOST]] + more
        )
        for one in given
    ]


def _seed(records: Sequence[Record]) -> list[str]:
    return [f"seed {record.config['seed']}" if "seed" in record.config else "" for record in records]


def _folder(records: Sequence[Record]) -> list[str]:
    return [record.path.name for record in records]


def _path(records: Sequence[Record]) -> list[str]:
    return [str(record.path) for record in records]
