"""Counter-based draws: prefix property, independence of lanes and streams, distribution, no global state."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastdd.core import rng

WORD = (1 << 64) - 1


def scalar_bits(key: int, position: int) -> int:
    """SplitMix64's finaliser in plain Python integers: the truth for the vectorised int64 arithmetic."""

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
        return z ^ (z >> 31)

    return mix((mix((key & WORD) ^ 0x5851F42D4C957F2D) + position * 0x9E3779B97F4A7C15) & WORD)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 40))
def test_matches_scalar_arithmetic(key, n):
    assert [value & WORD for value in rng.bits(key, n).tolist()] == [scalar_bits(key, i) for i in range(n)]


@given(st.integers(0, 2**32), st.integers(0, 50), st.integers(0, 50))
def test_prefix_does_not_depend_on_length(seed, short, more):
    key = rng.key(seed, "stream", 3)
    assert torch.equal(rng.uniform(key, short + more)[:short], rng.uniform(key, short))
    assert torch.equal(rng.lanes(key, short + more)[:short], rng.lanes(key, short))


def test_streams_counters_and_seeds_differ():
    keys = {
        rng.key(seed, stream, *counters)
        for seed in range(5)
        for stream in ("dsa", "net", "batch")
        for counters in [(), (0,), (1,), (0, 0), (1, 0), (0, 1), (10,), (1, 1)]
    }
    assert len(keys) == 5 * 3 * 8


def test_uniform_is_uniform_across_lanes_and_positions():
    u = rng.uniform(rng.lanes(rng.key(0, "chi"), 500), 500)
    for counts in (torch.histc(u, 50), torch.histc(u[:, 0], 10), torch.histc(u[0], 10)):
        expected = counts.sum() / len(counts)
        chi2 = ((counts - expected) ** 2 / expected).sum().item()
        assert chi2 < len(counts) + 5 * (2 * len(counts)) ** 0.5
    assert u.min() >= 0
    assert u.max() < 1


def test_normal_moments():
    x = rng.normal(rng.key(0, "normal"), 400_000).double()
    assert abs(x.mean()) < 5 / 400_000**0.5
    assert abs(x.var() - 1) < 5 * (2 / 400_000) ** 0.5
    assert abs((x**4).mean() - 3) < 5 * (96 / 400_000) ** 0.5


@pytest.mark.parametrize("key", [0, 7, -3, 2**63 - 1, -(2**63)])
def test_arrays_are_the_tensors_numbers(key):
    for n in (0, 1, 1000):
        assert np.array_equal(rng.uniform_array(key, n), rng.uniform(key, n).numpy())


def test_permutation():
    p = rng.permutation(rng.lanes(rng.key(0, "p"), 200), 6)
    assert (p.sort(dim=-1).values == torch.arange(6)).all()
    first = torch.bincount(p[:, 0], minlength=6)
    assert first.min() > 10


@pytest.mark.gpu
def test_gpu_draws_equal_cpu_draws():
    keys = rng.lanes(rng.key(3, "gpu"), 7)
    assert torch.equal(rng.bits(keys.cuda(), 1000).cpu(), rng.bits(keys, 1000))


def test_global_generators_are_left_alone():
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    rng.normal(rng.key(0, "x"), 10)
    rng.permutation(5, 10)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002
    assert python_state == random.getstate()
