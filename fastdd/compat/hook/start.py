"""One line at the top of a script that starts the hook."""

import os
import sys

from fastdd.compat import deferred
from fastdd.compat.hook import children, substitutes
from fastdd.compat.hook.finder import Hook, enabled
from fastdd.compat.shared import randomness


def install(*, verify: bool = False, rng: str = "fast", seed: int | None = None, defer: bool = True) -> Hook:
    """Replace published functions in this script's own modules, those already imported and those to come.

    One line at the top of a script, for what ``fastdd run`` does without it; ``.summary()`` of what it returns tells
    what was replaced and called. Under ``fastdd run``, or at a second call, it returns the hook that is there. Of what
    the script itself defines, that above the call is replaced: below the definitions a call, the first or a second,
    reaches them all. With FASTDD_COMPAT=0 in the environment nothing is replaced.

    Args:
        verify: compare the first calls of every name with the original, and go back to it where they differ.
        rng: ``fast`` or ``legacy`` (:func:`fastdd.compat.use_rng`).
        seed: of ``fast`` (:func:`fastdd.compat.seed`).
        defer: compute together what a loop over classes or groups asks for (:mod:`fastdd.compat.deferred`).

    Raises:
        ValueError: another ``rng``.
    """
    randomness.use_rng(rng)
    if seed is not None:
        randomness.seed(seed)
    substitutes.install()
    if (installed := next((finder for finder in sys.meta_path if isinstance(finder, Hook)), None)) is not None:
        installed.look_at_main()
        return installed
    file = getattr(sys.modules["__main__"], "__file__", None)
    hook = Hook(os.getcwd() if file is None else os.path.dirname(os.path.realpath(file)), verify)
    if enabled():
        deferred.use(defer)
        hook.install()
        hook.look_at_main()
    children.follow(children.Settings(str(hook.folder), verify, replacing=enabled(), defer=defer))
    return hook
