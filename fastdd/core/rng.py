"""Counter-based random numbers: every draw is a pure function of (run seed, stream name, counters, position).

There is no generator state to save, so a resumed run, a run on another number of ranks and a run that was evaluated
in between all make the same draws; and the arithmetic is 64-bit integers only, so CPU and GPU agree bit for bit.
The global RNGs of torch, numpy and Python are neither read nor reseeded.

A **key** is a 64-bit integer: ``key(seed, "dsa", step)``. A tensor of keys, one a lane (a class, a network), comes from
``lanes(key, n)``. The draws of a key are ``mix(mix(key ^ salt) + i * golden)``, with the finaliser of SplitMix64
(Steele, Lea and Flood, OOPSLA 2014), vectorised over lanes and positions.
"""

import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB
# Draws of a key and children of a key must not be the same numbers.
_DRAW_SALT = 0x5851F42D4C957F2D
_WORD = 1 << 64


def _signed(value: int) -> int:
    """The two's-complement int64 with the bits of ``value`` mod 2**64: what torch's int64 holds."""
    value %= _WORD
    return value - _WORD if value >= _WORD >> 1 else value


def _mix(z):
    """The finaliser, of a tensor or an array of int64."""
    # Both shift arithmetically; the mask makes the shift logical.
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _signed(_MULTIPLIER_1)
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _signed(_MULTIPLIER_2)
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def key(seed: int, stream: str, *counters: int) -> int:
    """The key of a stream at the given counters (a step, an epoch, a network's number).

    Names and counters are hashed (BLAKE2b), so distinct streams are independent whatever their names.

    >>> key(0, "dsa", 3) == key(0, "dsa", 3), key(0, "dsa", 3) == key(0, "dsa", 4)
    (True, False)
    """
    text = "\x1f".join([stream, str(seed), *map(str, counters)])
    return _signed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def plain_lanes(parent: Tensor, n: int) -> Tensor:
    """:func:`lanes` of a key that is a tensor, in plain PyTorch, which is the truth for kernels."""
    return _mix(parent[..., None] + torch.arange(1, n + 1, device=parent.device) * _signed(_GOLDEN))


def plain_bits(keys: Tensor, n: int) -> Tensor:
    """:func:`bits` of keys that are a tensor, likewise."""
    start = _mix(keys ^ _signed(_DRAW_SALT))
    return _mix(start[..., None] + torch.arange(n, device=keys.device) * _signed(_GOLDEN))


def plain_uniform(keys: Tensor, n: int) -> Tensor:
    """:func:`uniform` of keys that are a tensor, likewise."""
    return ((plain_bits(keys, n) >> 40) & ((1 << 24) - 1)).to(torch.float32) * 2.0**-24


class Draws(NamedTuple):
    """How a kind of device draws: the same numbers as ``plain_lanes``, ``plain_bits`` and ``plain_uniform``."""

    lanes: Callable[[Tensor, int], Tensor]
    bits: Callable[[Tensor, int], Tensor]
    uniform: Callable[[Tensor, int], Tensor]


_PLAIN = Draws(plain_lanes, plain_bits, plain_uniform)
_on: dict[str, Draws] = {}


def draw_by(device_type: str, draws: Draws) -> None:
    """Let a kind of device draw by kernels, which this module, below them all, does not know."""
    _on[device_type] = draws


def _draws(device: torch.device) -> Draws:
    return _on.get(device.type, _PLAIN)


def _keys(keys: int | Tensor, device: torch.device | str) -> Tensor:
    """Keys as a tensor; one key is a scalar."""
    return keys if isinstance(keys, Tensor) else torch.full((), _signed(keys), dtype=torch.int64, device=device)


def lanes(parent: int | Tensor, n: int, device: torch.device | str = "cpu") -> Tensor:
    """``n`` child keys of each parent, int64 [*, n]: one a class, say. Lane ``i`` does not depend on ``n``.

    Args:
        parent: a key; or int64 keys of any shape [*], whose device is where the lanes are.
        n: how many.
        device: where they are when ``parent`` is an int.
    """
    parent = _keys(parent, device)
    return _draws(parent.device).lanes(parent, n)


def bits(keys: int | Tensor, n: int, device: torch.device | str = "cpu") -> Tensor:
    """``n`` uniform 64-bit integers a key.

    Args:
        keys: one key, or int64 keys of any shape [*].
        n: draws a key. Draw ``i`` does not depend on ``n``.
        device: where to draw when ``keys`` is an int; a tensor's draws are on its device.

    Returns:
        int64 [*, n].
    """
    keys = _keys(keys, device)
    return _draws(keys.device).bits(keys, n)


def bits_array(key: int, n: int) -> np.ndarray:
    """``bits(key, n)`` as an array, int64 [n]: the same numbers, computed by numpy, where the host decides by them.

    >>> bool((bits_array(5, 3) == bits(5, 3).numpy()).all())
    True
    """
    start = _mix(np.array([_signed(key) ^ _signed(_DRAW_SALT)]))
    return _mix(start + np.arange(n, dtype=np.int64) * _signed(_GOLDEN))


def uniform(keys: int | Tensor, n: int, device: torch.device | str = "cpu") -> Tensor:
    """float32 [*, n], uniform on [0, 1): multiples of 2**-24, so 1 is never reached.

    >>> uniform(key(0, "docs"), 3)
    tensor([0.2497, 0.1574, 0.0303])
    """
    keys = _keys(keys, device)
    return _draws(keys.device).uniform(keys, n)


def uniform_array(key: int, n: int) -> np.ndarray:
    """``uniform(key, n)`` as an array, float32 [n]: the same numbers, computed by numpy.

    Of a few numbers, torch takes several times as long for the calls alone.

    >>> bool((uniform_array(5, 3) == uniform(5, 3).numpy()).all())
    True
    """
    return ((bits_array(key, n) >> 40) & ((1 << 24) - 1)).astype(np.float32) * np.float32(2.0**-24)


def normal(keys: int | Tensor, n: int, device: torch.device | str = "cpu") -> Tensor:
    """float32 [*, n], standard normal (Box-Muller; magnitudes up to 5.8)."""
    u = uniform(keys, 2 * n, device)
    radius = torch.sqrt(-2 * torch.log1p(-u[..., :n]))
    return radius * torch.cos(2 * math.pi * u[..., n:])


def permutation(keys: int | Tensor, n: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [*, n]: a uniform random permutation of 0..n-1 for every key."""
    return bits(keys, n, device).argsort(dim=-1, stable=True)
