"""The networks of IDC and DREAM (``models/``), by their published names.

``state_dict`` keys, parameter order and the draws of the constructors are the published ones.
"""

from fastdd.compat.idc.networks import convnet, definition, densenet, resnet
from fastdd.compat.idc.networks.convnet import *
from fastdd.compat.idc.networks.definition import *
from fastdd.compat.idc.networks.densenet import *
from fastdd.compat.idc.networks.resnet import *

__all__ = [*convnet.__all__, *definition.__all__, *densenet.__all__, *resnet.__all__]
