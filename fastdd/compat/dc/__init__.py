"""What code of the DatasetCondensation family (DC, DSA, DM, CAFE, DC-Bench) has in its ``utils`` and ``networks``.

    from fastdd.compat.dc import DiffAugment, ParamDiffAug, epoch, evaluate_synset, get_network, match_loss

in place of ``from utils import ...``: the same names, parameters, results and printed lines. What draws takes ``rng=``
besides (:func:`fastdd.compat.use_rng`). ``dm_loss`` and ``dc_loss`` stand for the whole loop over classes.

A part's ``__all__`` is what scripts import; what else it defines is for the families that were made of this one.
"""

from fastdd.compat.dc import augmentation, datasets, matching, networks, training
from fastdd.compat.dc.augmentation import *
from fastdd.compat.dc.datasets import *
from fastdd.compat.dc.matching import *
from fastdd.compat.dc.networks import *
from fastdd.compat.dc.training import *
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
