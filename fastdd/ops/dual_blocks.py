"""A ConvNet's blocks on dual numbers, values with their tangents: the gradient of a network and its derivative along a
direction (:class:`fastdd.models.ConvNetLoss`), in memory that is given.

The ops have no derivative: they are one. See :mod:`fastdd.reference.dual_blocks` for the formulas.
"""

from collections.abc import Callable

import torch

from fastdd.ops import _dispatch
from fastdd.reference import dual_blocks as reference

_KERNELS = {"cpu": "native"}
# From so many channels on convolutions are Winograd's; the first block's images have fewer.
FEWEST_CHANNELS = 16
_NORM = "Tensor weight, Tensor? dweight, Tensor bias, Tensor? dbias"
_SCHEMAS = {
    "conv3x3": "Tensor x, Tensor? dx, Tensor filters, Tensor? dfilters, bool adjoint, Tensor(a!) y, Tensor(b!)? dy",
    "conv3x3_weight": "Tensor x, Tensor? dx, Tensor g, Tensor? dg, Tensor(a!) out",
    "norm_act_pool": f"Tensor z, Tensor? dz, {_NORM}, float eps, str pool, Tensor(a!) y, Tensor(b!)? dy,"
    " Tensor(c!) stats, Tensor(d!)? dstats",
    "norm_act_pool_backward": f"Tensor g, Tensor? dg, Tensor(a!) z, Tensor(b!)? dz, {_NORM}, str pool, Tensor stats,"
    " Tensor? dstats, Tensor(c!) to_weight, Tensor(d!) to_bias",
    "first_block": f"Tensor x, Tensor filters, Tensor? dfilters, {_NORM}, float eps, str pool, Tensor(a!) y,"
    " Tensor(b!)? dy, Tensor(c!) stats, Tensor(d!)? dstats",
    "first_block_backward": f"Tensor g, Tensor? dg, Tensor x, Tensor filters, Tensor? dfilters, {_NORM}, str pool,"
    " Tensor stats, Tensor? dstats, Tensor(a!)? to_x, Tensor(b!)? to_filters, Tensor(c!) to_weight, Tensor(d!) to_bias",
}
for _name, _arguments in _SCHEMAS.items():
    _op = _dispatch.define(f"dual_{_name}({_arguments}) -> ()", getattr(reference, _name), _KERNELS)
    _dispatch.register_fake(_op, lambda *_: None)
    _dispatch.register_refusal(_op)


def dual_block_ops(dtype: torch.dtype) -> Callable[[str], Callable] | None:
    """What finds a function of :mod:`fastdd.reference.dual_blocks` by its name, on the CPU: the C++ kernels for
    float32, the reference for float64; None where float32 would run on the reference, which is no faster than
    PyTorch's own derivatives.

    The C++ kernels take contiguous tensors, convolutions of 16 channels and more, and images of fewer. A value and its
    tangent share the transforms of Winograd's convolutions, and one pass over a norm's input; two runs are bitwise
    equal, and do not depend on the number of threads.
    """
    if dtype == torch.float64:
        return lambda name: getattr(reference, name)
    native = (
        dtype == torch.float32
        and _dispatch.has_kernel("dual_conv3x3", torch.device("cpu"))
        and _dispatch.choose("dual_conv3x3", "auto", torch.device("cpu")) == "dispatch"
    )
    return (lambda name: getattr(torch.ops.fastdd, f"dual_{name}")) if native else None
