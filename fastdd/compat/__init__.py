"""Names and signatures of existing distillation code over fastdd's ops: a drop-in for its utils and networks."""

from fastdd.compat._matching import RealImages, dc_loss, dm_loss, fairdd_dc_loss, fairdd_dm_loss
from fastdd.compat._random import seed, use_rng
from fastdd.compat.hook import install

__all__ = ["RealImages", "dc_loss", "dm_loss", "fairdd_dc_loss", "fairdd_dm_loss", "install", "seed", "use_rng"]
