"""Names and signatures of existing distillation code over fastdd's ops: a drop-in for its utils and networks.

``hook`` replaces them in running scripts; ``dc``, ``fairdd``, ``mtt`` and ``idc`` are the families of published code;
``shared`` is what several of them stand on.
"""

from fastdd.compat.dc.matching import RealImages, dc_loss, dm_loss, fairdd_dc_loss, fairdd_dm_loss
from fastdd.compat.hook import install
from fastdd.compat.shared.randomness import seed, use_rng

__all__ = ["RealImages", "dc_loss", "dm_loss", "fairdd_dc_loss", "fairdd_dm_loss", "install", "seed", "use_rng"]
