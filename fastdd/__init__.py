"""fastdd: kernel-accelerated dataset distillation that treats bias as data.

>>> import fastdd
>>> data = fastdd.data.load("c-digits")
>>> data.num_classes, data.num_groups, data.size
(10, 10, (16, 16))
"""

import importlib
from typing import TYPE_CHECKING

from fastdd.core.version import __version__

if TYPE_CHECKING:
    from fastdd import data
    from fastdd.api import (
        distill,
        estimate,
        evaluate,
        export_synthetic,
        import_synthetic,
        kde_weights,
        pseudo_groups,
        train_experts,
    )
    from fastdd.ops import diff_augment

__all__ = [
    "__version__",
    "data",
    "diff_augment",
    "distill",
    "estimate",
    "evaluate",
    "export_synthetic",
    "import_synthetic",
    "kde_weights",
    "pseudo_groups",
    "train_experts",
]

# Imported when first used, so that `import fastdd` and `fastdd --help` do not wait for torch.
_HOMES = {
    "distill": "fastdd.api",
    "estimate": "fastdd.api",
    "evaluate": "fastdd.api",
    "export_synthetic": "fastdd.api",
    "import_synthetic": "fastdd.api",
    "kde_weights": "fastdd.api",
    "pseudo_groups": "fastdd.api",
    "train_experts": "fastdd.api",
    "diff_augment": "fastdd.ops",
}


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "data":
        return importlib.import_module("fastdd.data")
    raise AttributeError(f"module 'fastdd' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
