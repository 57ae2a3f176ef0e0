"""Networks that a script saves whole load where fastdd is not: layers of ours are pickled as PyTorch's.

A replaced network has the script's name for its class and PyTorch's layers for its layers in the file; loaded where the
hook is, it has ours again.
"""

import copy
import copyreg
from typing import Any, ClassVar

from torch import nn

from fastdd import ops
from fastdd.models.blocks import Blocks


class AsPyTorchs:
    """A layer of ours that is pickled as ``plain``, with the same state, and copied as it is."""

    plain: ClassVar[type[nn.Module]]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return copyreg._reconstructor, (self.plain, object, None), dict(self.__dict__)


def named_as(plain: type[nn.Module], ours: type[nn.Module], **body: Any) -> type[nn.Module]:
    """``ours`` under PyTorch's name, for who prints a network or looks at the names of its layers."""
    body |= {"plain": plain, "__module__": plain.__module__}
    return type(plain.__name__, (AsPyTorchs, ours), body)


_OURS = {
    kind: made
    for plain, ours in ((nn.Conv2d, ops.Conv2d), (nn.Sequential, Blocks))
    for made in (named_as(plain, ours),)
    for kind in (plain, ours)
}


def equip(net: nn.Module, holder: str) -> None:
    """Give a replaced network, new or loaded, layers of ours that are saved as PyTorch's.

    Args:
        holder: the name of the module that has its convolutions.
    """
    for layer in vars(net)["_modules"][holder].modules():
        if type(layer) in _OURS:
            layer.__class__ = _OURS[type(layer)]
