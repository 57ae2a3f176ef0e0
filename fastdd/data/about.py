"""What a synthetic set's metadata must be for evaluation and reports to go by it."""

from fastdd.core.reading import is_count, is_number
from fastdd.core.text import shown

_NONE = type(None)
# What entries of the metadata are, where there are any.
_KINDS = {
    **dict.fromkeys(
        ("run", "provenance", "kde", "versions", "source", "experts", "networks", "teacher"),
        ((dict, _NONE), "names with values"),
    ),
    **dict.fromkeys(("method", "debias", "dataset"), ((str, _NONE), "a word")),
}


def check_about(metadata: dict) -> None:
    """ValueError where what evaluation and reports go by is of another kind than fastdd writes."""
    words = metadata["class_names"]
    if not isinstance(words, list | tuple) or not words or not all(isinstance(word, str) for word in words):
        raise ValueError(f"metadata class_names must be words, one a class, not {shown(words)}")
    for name, (kinds, wanted) in _KINDS.items():
        if not isinstance(metadata.get(name), kinds):
            raise ValueError(f"metadata has {name} {shown(metadata[name])}, not {wanted}")
    run, parameters = metadata.get("run") or {}, (metadata.get("provenance") or {}).get("parameters")
    missing = [name for name in ("arch", "dsa_strategy") if run and not isinstance(run.get(name), str)]
    if missing:
        raise ValueError(f"the run in its metadata has no {missing[0]}")
    for name in ("width", "depth"):
        if run.get(name) is not None and not (is_count(run[name]) and run[name]):
            raise ValueError(f"the run in its metadata has {name} {shown(run[name])}")
    counted = metadata.get("ipc") is None or is_count(metadata["ipc"])
    if not counted or not isinstance(parameters, dict | None):
        raise ValueError(f"metadata has ipc {metadata.get('ipc')!r:.60}, parameters {parameters!r:.60}")
    _check_diagnostics((metadata.get("kde") or {}).get("diagnostics"), len(words))


def _check_diagnostics(diagnostics: object, classes: int) -> None:
    if diagnostics is None:
        return
    for name in ("counts", "ess", "conflict_share", "conflict_mass"):
        row = diagnostics.get(name) if isinstance(diagnostics, dict) else diagnostics
        if row is None and name.startswith("conflict"):
            continue
        figures = isinstance(row, list | tuple) and all(part is None or is_number(part) for part in row)
        if not figures or len(row) != classes or (None in row and not name.startswith("conflict")):
            raise ValueError(f"metadata has of its weights' diagnostics {name} {shown(row)}, not a number a class")
