"""What distillation scripts use of torchvision, for machines without it: image grids, few transforms, data sets.

Values are torchvision's own to the bit, where it says so. Names that are not here can be imported, and say that they
need torchvision when they are used. Nothing is downloaded: files are read where torchvision would have put them.
"""

from fastdd.compat.hook.torchvision_substitute import datasets, transforms, utils

__all__ = ["datasets", "transforms", "utils"]
