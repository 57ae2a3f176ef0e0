"""Names and signatures of existing distillation code over fastdd's ops: a drop-in for its utils and networks."""

from fastdd.compat._random import seed, use_rng
from fastdd.compat.hook import install

__all__ = ["install", "seed", "use_rng"]
