"""Triton kernels of counter-based draws and of what is made of them. Never run on a GPU yet.

A draw is some 64-bit integer operations, which PyTorch launches one by one: of few numbers the launches are all the
time there is. Here draws of any number of keys are one launch, and so are a network's parameters, and a batch's
augmentation parameters. Draws have the bits of :mod:`fastdd.core.rng`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.segment_mean import on


@triton.jit
def mixed(z):
    """SplitMix64's finaliser; unsigned, so that shifts bring in zeros."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)


@triton.jit
def word(keys, number):
    """Draw ``number`` of keys."""
    start = mixed(keys.to(tl.uint64) ^ 0x5851F42D4C957F2D)
    return mixed(start + number.to(tl.uint64) * 0x9E3779B97F4A7C15)


@triton.jit
def share(bits):
    """Uniform on [0, 1), a multiple of 2**-24, exact in float32; signed first, as all of them know how to convert."""
    return (bits >> 40).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def counter_lanes(parents, out, n_lanes, n, DRAWS: tl.constexpr):
    # n: lanes of all parents together, n_lanes of each.
    o_i = tl.program_id(0).to(tl.int64) * DRAWS + tl.arange(0, DRAWS)
    m_i = o_i < n
    key = tl.load(parents + o_i // n_lanes, mask=m_i, other=0).to(tl.uint64)
    lanes = mixed(key + (o_i % n_lanes + 1).to(tl.uint64) * 0x9E3779B97F4A7C15)
    tl.store(out + o_i, lanes.to(tl.int64), mask=m_i)


@triton.jit
def counter_draws(keys, out, n_draws, n, UNIFORM: tl.constexpr, DRAWS: tl.constexpr):
    # n: numbers of all keys together, n_draws of each.
    o_i = tl.program_id(0).to(tl.int64) * DRAWS + tl.arange(0, DRAWS)
    m_i = o_i < n
    bits = word(tl.load(keys + o_i // n_draws, mask=m_i, other=0), o_i % n_draws)
    tl.store(out + o_i, share(bits) if UNIFORM else bits.to(tl.int64), mask=m_i)


@triton.jit
def fresh_parameters(key, scale, offset, out, n, DRAWS: tl.constexpr):
    o_i = tl.program_id(0).to(tl.int64) * DRAWS + tl.arange(0, DRAWS)
    m_i = o_i < n
    u = share(word(tl.load(key), o_i))
    b_scale, b_offset = tl.load(scale + o_i, mask=m_i), tl.load(offset + o_i, mask=m_i)
    tl.store(out + o_i, b_offset + (2 * u - 1) * b_scale, mask=m_i)


def _launch(kernel, name: str, out: Tensor, *arguments) -> Tensor:
    n = out.numel()
    if n:
        options = config(name, out.device)
        with on(out.device):
            kernel[(-(-n // options["DRAWS"]),)](*arguments, **options)
    return out


def lanes(parent: Tensor, n: int) -> Tensor:
    """One launch for :func:`fastdd.core.rng.lanes`."""
    parent, out = parent.contiguous(), parent.new_empty((*parent.shape, n))
    return _launch(counter_lanes, "counter_draws", out, parent, out, n, out.numel())


def bits(keys: Tensor, n: int) -> Tensor:
    """One launch for :func:`fastdd.core.rng.bits`."""
    keys, out = keys.contiguous(), keys.new_empty((*keys.shape, n))
    return _launch(counter_draws, "counter_draws", out, keys, out, n, out.numel(), False)


def uniform(keys: Tensor, n: int) -> Tensor:
    """One launch for :func:`fastdd.core.rng.uniform`."""
    keys, out = keys.contiguous(), keys.new_empty((*keys.shape, n), dtype=torch.float32)
    return _launch(counter_draws, "counter_draws", out, keys, out, n, out.numel(), True)


def parameters(key: Tensor, scale: Tensor, offset: Tensor, out: Tensor) -> None:
    """One launch for :func:`fastdd.ops.draws.random_parameters`."""
    _launch(fresh_parameters, "counter_draws", out, key, scale, offset, out, out.numel())
