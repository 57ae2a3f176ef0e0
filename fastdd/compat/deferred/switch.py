"""Turning deferral on and off."""

from fastdd.compat.deferred import escapes, sites, vocabulary


def use(on: bool) -> None:
    """Whether a script's calls of recognised networks are recorded from now on; forgets what was noted before."""
    sites.start(on)
    if on:
        escapes.close()
        vocabulary.calibrate()
