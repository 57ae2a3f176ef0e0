"""fastdd: kernel-accelerated dataset distillation that treats bias as data."""

from fastdd._version import __version__

__all__ = ["__version__"]
