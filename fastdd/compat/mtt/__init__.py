"""What code of the trajectory matching family (MTT, TESLA and forks) has in its ``utils``, ``networks`` and
``reparam_module``.
"""

from fastdd.compat.mtt import augmentation, datasets, networks, reparam, subsets, training
from fastdd.compat.mtt.augmentation import *
from fastdd.compat.mtt.datasets import *
from fastdd.compat.mtt.networks import *
from fastdd.compat.mtt.reparam import *
from fastdd.compat.mtt.subsets import *
from fastdd.compat.mtt.training import *
from fastdd.compat.shared import clock
from fastdd.compat.shared.clock import *

__all__ = [
    *augmentation.__all__,
    *clock.__all__,
    *datasets.__all__,
    *networks.__all__,
    *reparam.__all__,
    *subsets.__all__,
    *training.__all__,
]
