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

    # From the files: to mypy, distill of fastdd.api would be the module of that name.
    from fastdd.api.audit import audit
    from fastdd.api.distill import distill
    from fastdd.api.distillation import Distillation
    from fastdd.api.estimate import estimate
    from fastdd.api.evaluate import evaluate
    from fastdd.api.exchange import export_synthetic, import_synthetic, load_synthetic
    from fastdd.api.experts import train_experts
    from fastdd.api.explain import explain
    from fastdd.api.rank import rank
    from fastdd.api.register import load_plugin, register_dataset, register_method, register_mode, register_network
    from fastdd.api.relabel import relabel
    from fastdd.api.train import load_network, train_network
    from fastdd.api.weights import kde_weights, pseudo_groups
    from fastdd.ops import diff_augment

__all__ = [
    "Distillation",
    "__version__",
    "audit",
    "data",
    "diff_augment",
    "distill",
    "estimate",
    "evaluate",
    "explain",
    "export_synthetic",
    "import_synthetic",
    "kde_weights",
    "load_network",
    "load_plugin",
    "load_synthetic",
    "pseudo_groups",
    "rank",
    "register_dataset",
    "register_method",
    "register_mode",
    "register_network",
    "relabel",
    "train_experts",
    "train_network",
]

# Imported when first used, so that `import fastdd` and `fastdd --help` do not wait for torch.
_HOMES = {
    "Distillation": "fastdd.api",
    "audit": "fastdd.api",
    "distill": "fastdd.api",
    "estimate": "fastdd.api",
    "evaluate": "fastdd.api",
    "explain": "fastdd.api",
    "export_synthetic": "fastdd.api",
    "import_synthetic": "fastdd.api",
    "kde_weights": "fastdd.api",
    "load_network": "fastdd.api",
    "load_plugin": "fastdd.api",
    "load_synthetic": "fastdd.api",
    "pseudo_groups": "fastdd.api",
    "rank": "fastdd.api",
    "register_dataset": "fastdd.api",
    "register_method": "fastdd.api",
    "register_mode": "fastdd.api",
    "register_network": "fastdd.api",
    "relabel": "fastdd.api",
    "train_experts": "fastdd.api",
    "train_network": "fastdd.api",
    "diff_augment": "fastdd.ops",
}


def load_ipython_extension(shell: object) -> None:
    """``%load_ext fastdd``: a notebook's distillation code on fastdd's ops, as by ``fastdd run``.

    Args:
        shell: IPython's.
    """
    importlib.import_module("fastdd.compat.hook.notebook").load(shell)


if not TYPE_CHECKING:  # or any name would be an attribute to type checkers

    def __getattr__(name: str):
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        if name == "data":
            return importlib.import_module("fastdd.data")
        raise AttributeError(f"module 'fastdd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
