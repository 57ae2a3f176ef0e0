"""How bias is handled, as data: a mode turns a batch of real samples into weighted :class:`Segments`.

A mode is one file, which makes a :class:`Mode`, and a line of :data:`MODES`.
"""

from fastdd.core import plugins
from fastdd.core.text import one_of
from fastdd.debias import barycenter, biased_dd, fairdd, fairdd_batch, group_weighted, kde, none, weightings
from fastdd.debias.base import Mode
from fastdd.debias.segments import Batch, Segments
from fastdd.debias.trial import check_mode

MODES: dict[str, Mode] = {
    "none": none.MODE,
    "fairdd": fairdd.MODE,
    "kde": kde.MODE,
    "fairdd-iw": weightings.INVERSE_SIZE,
    "fairdd-ldam": weightings.LDAM,
    "fairdd-groupdro": weightings.GROUP_DRO,
    "barycenter": barycenter.MODE,
    "group-weighted": group_weighted.MODE,
    "biased-dd": biased_dd.MODE,
    "fairdd-batch": fairdd_batch.MODE,
}


def mode(name: str) -> Mode:
    """A debias mode by its name; ValueError names the known ones."""
    if name not in MODES:
        cure = plugins.cure(plugins.MODE, name) or f"; {one_of(name, MODES)}"
        raise ValueError(f"unknown debias mode {name!r}{cure}")
    return MODES[name]


def register(name: str, mode: Mode) -> None:
    """Add a user's mode, after a trial (:func:`fastdd.register_mode`)."""
    plugins.check_name(plugins.MODE, name, MODES, mode.segments)
    check_mode(name, mode)
    MODES[name] = mode
    plugins.claim(plugins.MODE, name, mode.segments, lambda: MODES.pop(name, None))


def modes_that_need(what: str) -> list[str]:
    """The names of the modes that go by ``groups`` or ``weights``."""
    return [name for name, each in MODES.items() if each.needs == what]


__all__ = ["MODES", "Batch", "Mode", "Segments", "mode", "modes_that_need", "register"]
