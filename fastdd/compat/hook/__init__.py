"""``fastdd run``: published functions in a script's own modules are recognised, replaced, verified and summed up."""

from fastdd.compat.hook.finder import Hook, enabled, install

__all__ = ["Hook", "enabled", "install"]
