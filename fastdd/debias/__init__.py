"""How bias is handled, as data: each mode turns a batch of real samples into weighted :class:`Segments`."""

from collections.abc import Callable

from fastdd.debias import fairdd, none, weightings
from fastdd.debias.segments import Batch, Segments

MODES: dict[str, Callable[[Batch], Segments]] = {
    "none": none.segments,
    "fairdd": fairdd.segments,
    # The class again; the batch then has weights (fastdd.debias.kde), or was drawn in proportion to them.
    "kde": none.segments,
    "fairdd-iw": weightings.inverse_size,
    "fairdd-ldam": weightings.ldam,
    "fairdd-groupdro": weightings.group_dro,
}


def mode(name: str) -> Callable[[Batch], Segments]:
    """The segmentation of a debias mode by its name; ValueError names the known ones."""
    if name not in MODES:
        raise ValueError(f"unknown debias mode {name!r}; one of: {', '.join(MODES)}")
    return MODES[name]


__all__ = ["MODES", "Batch", "Segments", "mode"]
