"""Names and signatures of existing distillation code over fastdd's ops: a drop-in for its utils and networks.

``hook`` replaces them in running scripts; ``dc``, ``fairdd``, ``mtt`` and ``idc`` are the families of published code;
``shared`` is what several of them stand on.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastdd.compat.dc.matching import RealImages, dc_loss, dm_loss, fairdd_dc_loss, fairdd_dm_loss
    from fastdd.compat.hook import install
    from fastdd.compat.shared.randomness import seed, use_rng

__all__ = ["RealImages", "dc_loss", "dm_loss", "fairdd_dc_loss", "fairdd_dm_loss", "install", "seed", "use_rng"]

# Where each name is: a script waits for what it uses only.
_HOMES = {
    **dict.fromkeys(("RealImages", "dc_loss", "dm_loss", "fairdd_dc_loss", "fairdd_dm_loss"), "dc.matching"),
    **{"install": "hook", "seed": "shared.randomness", "use_rng": "shared.randomness"},
}
_PARTS = ("dc", "deferred", "fairdd", "hook", "idc", "mtt", "shared")


if not TYPE_CHECKING:  # or any name would be an attribute to type checkers

    def __getattr__(name: str):
        if name in _HOMES:
            return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        if name in _PARTS:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
