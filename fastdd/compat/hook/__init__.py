"""``fastdd run``: published functions in a script's own modules are recognised, replaced, verified and summed up."""

from fastdd.compat.hook.finder import Hook, enabled
from fastdd.compat.hook.start import install

__all__ = ["Hook", "enabled", "install"]
