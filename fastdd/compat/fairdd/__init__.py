"""What FairDD's code has in its ``utils`` and ``networks``. What differs from :mod:`fastdd.compat.dc`: data sets
of (image, label, group), evaluation with DEO_M and DEO_A, networks for 64x64 pixels.
"""

from fastdd.compat.dc import augmentation, matching
from fastdd.compat.dc.augmentation import *
from fastdd.compat.dc.matching import *
from fastdd.compat.fairdd import datasets, networks, training
from fastdd.compat.fairdd.datasets import *
from fastdd.compat.fairdd.networks import *
from fastdd.compat.fairdd.training import *
from fastdd.compat.shared import clock
from fastdd.compat.shared.clock import *

__all__ = [
    *augmentation.__all__,
    *clock.__all__,
    *datasets.__all__,
    *matching.__all__,
    *networks.__all__,
    *training.__all__,
]
