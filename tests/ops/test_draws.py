"""Draws as ops: the numbers of fastdd.core.rng, shapes for tracing, and a network's parameters."""

import pytest
import torch

from fastdd.core import rng
from fastdd.ops import random_parameters


def test_opcheck():
    keys = rng.lanes(3, 4)
    for op, arguments in (
        (torch.ops.fastdd.counter_lanes, (keys[0], 5)),
        (torch.ops.fastdd.counter_bits, (keys, 5)),
        (torch.ops.fastdd.counter_uniform, (keys.view(2, 2), 5)),
        (torch.ops.fastdd.random_parameters, (keys[0], torch.ones(6), torch.zeros(6), torch.empty(6))),
        (torch.ops.fastdd.dsa_rows, (keys, [0, 5], 8, 9, 1, torch.float32)),
    ):
        torch.library.opcheck(op.default, arguments)


def test_a_key_in_a_tensor_draws_what_the_number_draws():
    key = rng.key(0, "stream", 3)
    inside = torch.tensor(key)
    assert torch.equal(rng.lanes(inside, 7), rng.lanes(key, 7))
    assert torch.equal(rng.bits(inside, 7), rng.bits(key, 7))
    assert torch.equal(rng.uniform(inside, 7), rng.uniform(key, 7))


def test_parameters_are_uniform_about_their_offset():
    scale, offset = torch.tensor([0.0, 2.0, 0.5]), torch.tensor([1.0, 0.0, -1.0])
    out = torch.empty(3)
    random_parameters(torch.tensor(9), scale, offset, out)
    u = rng.uniform(9, 3).double()
    torch.testing.assert_close(out.double(), offset + (2 * u - 1) * scale, rtol=0, atol=1e-7)


@pytest.mark.gpu
def test_kernels_draw_what_the_cpu_draws():
    for keys in (torch.tensor(-7), rng.lanes(5, 300).view(3, 100)):
        for draw in (rng.bits, rng.uniform):
            assert torch.equal(draw(keys.cuda(), 129).cpu(), draw(keys, 129))
    assert torch.equal(rng.lanes(torch.tensor(-7).cuda(), 3000).cpu(), rng.lanes(-7, 3000))
