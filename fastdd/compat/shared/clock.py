"""The time, as scripts print it."""

import time

__all__ = ["get_time"]


def get_time() -> str:
    """The time now, ``[2024-01-31 12:00:00]``."""
    return time.strftime("[%Y-%m-%d %H:%M:%S]", time.localtime())
