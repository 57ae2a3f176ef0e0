"""What code of the IDC family (IDC, DREAM and forks) has in its ``misc.augment``, ``condense``, ``data``, ``models``
and ``train``. What needs torchvision's transforms takes any callable in their place.

Left out, as they are made of torchvision: ``ImageFolder``, ``save_img``, ``load_data`` and the ``transform_*``; give a
``transform`` of your own instead.
"""

from fastdd.compat.idc import augmentation, data, decoding, logs, matching, networks, synthesizer, training, transforms
from fastdd.compat.idc.augmentation import *
from fastdd.compat.idc.data import *
from fastdd.compat.idc.decoding import *
from fastdd.compat.idc.logs import *
from fastdd.compat.idc.matching import *
from fastdd.compat.idc.networks import *
from fastdd.compat.idc.synthesizer import *
from fastdd.compat.idc.training import *
from fastdd.compat.idc.transforms import *
from fastdd.compat.shared import clock
from fastdd.compat.shared.clock import *

__all__ = [
    *augmentation.__all__,
    *clock.__all__,
    *data.__all__,
    *decoding.__all__,
    *logs.__all__,
    *matching.__all__,
    *networks.__all__,
    *synthesizer.__all__,
    *training.__all__,
    *transforms.__all__,
]
