"""Counter-based draws of a GPU in one launch each: the numbers of :mod:`fastdd.core.rng`, which calls them there.

In PyTorch a draw is about ten operations on integers, and of the 302 launches of a step of DM 115 were those. On CPUs
the arithmetic of :mod:`fastdd.core.rng` itself runs.
"""

import torch
from torch import Tensor

from fastdd.core import rng
from fastdd.ops import _dispatch


def _plain_parameters(key: Tensor, scale: Tensor, offset: Tensor, out: Tensor) -> None:
    draws = rng.plain_uniform(key, out.numel())
    torch.addcmul(offset, draws.mul_(2).sub_(1), scale, out=out)


_KERNELS = {"cuda": "triton"}
_LANES = _dispatch.define("counter_lanes(Tensor parent, SymInt n) -> Tensor", rng.plain_lanes, _KERNELS)
_BITS = _dispatch.define("counter_bits(Tensor keys, SymInt n) -> Tensor", rng.plain_bits, _KERNELS)
_UNIFORM = _dispatch.define("counter_uniform(Tensor keys, SymInt n) -> Tensor", rng.plain_uniform, _KERNELS)
_PARAMETERS = _dispatch.define(
    "random_parameters(Tensor key, Tensor scale, Tensor offset, Tensor(a!) out) -> ()", _plain_parameters, _KERNELS
)


def random_parameters(key: Tensor, scale: Tensor, offset: Tensor, out: Tensor) -> None:
    """A network's parameters, ``offset + (2 u - 1) scale`` with u uniform on [0, 1), in place.

    Args:
        key: int64 scalar, from :mod:`fastdd.core.rng`.
        scale, offset: float32 [n].
        out: float32 [n], written.

    Deterministic in the key; equal keys give equal parameters on every device. Cost: one pass.
    """
    if _dispatch.choose("random_parameters", "auto", out.device) == "reference":
        _plain_parameters(key, scale, offset, out)
    else:
        torch.ops.fastdd.random_parameters(key, scale, offset, out)


def _lanes(parent: Tensor, n: int) -> Tensor:
    if _dispatch.choose("counter_lanes", "auto", parent.device) == "reference":
        return rng.plain_lanes(parent, n)
    return torch.ops.fastdd.counter_lanes(parent, n)


def _bits(keys: Tensor, n: int) -> Tensor:
    if _dispatch.choose("counter_bits", "auto", keys.device) == "reference":
        return rng.plain_bits(keys, n)
    return torch.ops.fastdd.counter_bits(keys, n)


def _uniform(keys: Tensor, n: int) -> Tensor:
    if _dispatch.choose("counter_uniform", "auto", keys.device) == "reference":
        return rng.plain_uniform(keys, n)
    return torch.ops.fastdd.counter_uniform(keys, n)


rng.draw_by("cuda", rng.Draws(_lanes, _bits, _uniform))


def _launcher(name: str):
    """A launcher that imports Triton as it is called, not before."""

    def launch(*arguments):
        from fastdd.kernels import draws

        return getattr(draws, name)(*arguments)

    return launch


for _name, _kernel in ((_LANES, "lanes"), (_BITS, "bits"), (_UNIFORM, "uniform"), (_PARAMETERS, "parameters")):
    _dispatch.register_triton(_name, _launcher(_kernel))
_dispatch.register_fake(_LANES, lambda parent, n: parent.new_empty((*parent.shape, n)))
_dispatch.register_fake(_BITS, lambda keys, n: keys.new_empty((*keys.shape, n)))
_dispatch.register_fake(_UNIFORM, lambda keys, n: keys.new_empty((*keys.shape, n), dtype=torch.float32))
_dispatch.register_fake(_PARAMETERS, lambda key, scale, offset, out: None)
