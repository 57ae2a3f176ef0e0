"""Where the draws of the drop-in functions come from: counter-based keys, or the global generators as published."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastdd.core import rng

MODES = ("fast", "legacy")
_state = {"mode": "fast", "seed": int(os.environ.get("FASTDD_SEED", "0")), "count": 0}


def checked_mode(name: str) -> str:
    """``name``; ValueError if it is no mode."""
    if name not in MODES:
        raise ValueError(f"rng must be one of {', '.join(MODES)}, not {name!r}")
    return name


def mode(given: str | None = None) -> str:
    """The mode asked for, or the one that :func:`use_rng` set."""
    return _state["mode"] if given is None else checked_mode(given)


@contextmanager
def _restoring(old: str) -> Iterator[None]:
    try:
        yield
    finally:
        _state["mode"] = old


def use_rng(name: str):
    """Choose where the drop-in functions draw from, from now on; as a context manager, until its end.

    Args:
        name: ``fast``, counter-based keys of :func:`seed`, which leave the global generators alone; or ``legacy``, the
            published code's own draws from the global generators of torch and numpy, with their side effects (a seeded
            augmentation reseeds torch's): bit for bit those of the published code, on CPUs.

    Raises:
        ValueError: another name.
    """
    old, _state["mode"] = _state["mode"], checked_mode(name)
    return _restoring(old)


def seed(value: int) -> None:
    """Start the draws of mode ``fast`` again from ``value`` (0, or $FASTDD_SEED, if never called)."""
    _state["seed"], _state["count"] = value, 0


def next_key(stream: str) -> int:
    """A key that no call before had (:func:`fastdd.core.rng.key`)."""
    _state["count"] += 1
    return rng.key(_state["seed"], f"compat-{stream}", _state["count"])


def child_seed(number: int) -> int:
    """The seed of a process that this one starts, by its number."""
    return rng.key(_state["seed"], "compat-child", number)


def seed_torch(value: int) -> None:
    """``torch.manual_seed``; without a GPU, without its list of calls to be made once there is one, which takes longer
    than an augmentation."""
    if torch.accelerator.is_available():
        torch.manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)
