"""Decoded and augmented in one pass, as one after the other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opchecks import opcheck

from fastdd.core import rng
from fastdd.ops import all_parts, augment, augment_stored, dsa_params, formation
from fastdd.ops.dsa import DSA_STRATEGY
from tests.ops.test_augment import plain as plainly_augmented
from tests.ops.test_augment import random_params
from tests.ops.test_formation import images
from tests.ops.test_formation import plain as plainly_decoded

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 3),
    channels=st.integers(1, 4),
    height=st.integers(1, 19),
    width=st.integers(1, 37),
    factor=st.integers(1, 4),
    chosen=st.one_of(st.none(), st.integers(0, 7)),
    backend=st.sampled_from(["auto", "reference"]),
)
def test_any_shape_parts_and_matrix(seed, n, channels, height, width, factor, chosen, backend):
    factor = min(factor, height, width)
    generator = torch.Generator().manual_seed(seed)
    stored, parts = images(seed, (n, channels, height, width)).requires_grad_(), None
    if chosen is not None and n:
        parts = all_parts(n, factor)[torch.randint(n * factor**2, (chosen,), generator=generator)]
    count = n * factor**2 if parts is None else len(parts)
    params, rows = random_params(seed, 3, (height, width)), torch.randint(3, (count,), generator=generator)
    got = augment_stored(stored, params, rows, factor=factor, parts=parts, fill=0.25, backend=backend)
    expected = augment(formation(stored, factor, parts, fill=0.25), params, rows)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-11)
    g = images(seed + 1, got.shape)
    ours, theirs = (torch.autograd.grad(made, stored, g)[0] for made in (got, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_bits_are_those_of_the_two_ops_on_any_number_of_threads(dtype):
    stored = images(0, (9, 3, 17, 17), dtype).requires_grad_()
    params = random_params(0, 36, (17, 17), torch.float32)
    expected = augment(formation(stored, 2), params)
    g = images(1, expected.shape, dtype)
    (backwards,) = torch.autograd.grad(expected, stored, g)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            got = augment_stored(stored, params, factor=2)
            assert torch.equal(got, expected)
            assert torch.equal(torch.autograd.grad(got, stored, g)[0], backwards)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_error_is_at_most_twice_plain_torchs(dtype, device):
    stored, parts = images(2, (8, 3, 32, 32), dtype, device), all_parts(8, 2, device)
    params = dsa_params(DSA_STRATEGY, rng.lanes(rng.key(1, "stored"), 32, device), (32, 32))

    def plain(x):
        return plainly_augmented(plainly_decoded(x, 2, parts, 0.5, (32, 32)), params)

    exact = plain(stored.double())
    error = (augment_stored(stored, params, factor=2, parts=parts).double() - exact).abs().max()
    assert error <= 2 * (plain(stored).double() - exact).abs().max()
    leaf, g = stored.double().requires_grad_(), images(3, exact.shape, dtype, device)
    (exact,) = torch.autograd.grad(plain(leaf), leaf, g.double())
    leaf = stored.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(plain(leaf), leaf, g)
    (ours,) = torch.autograd.grad(augment_stored(leaf, params, factor=2, parts=parts), leaf, g)
    assert (ours.double() - exact).abs().max() <= 2 * (theirs.double() - exact).abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_derivatives_of_any_order(backend, device):
    stored = images(4, (2, 2, 5, 5), device=device).requires_grad_()
    params = random_params(4, 2, (5, 5)).to(device)
    rows, parts = torch.tensor([1, 0, 1], device=device), torch.tensor([[1, 3], [0, 0], [1, 3]], device=device)

    def squared(x):
        return augment_stored(x, params, rows, factor=2, parts=parts, backend=backend).square()

    assert torch.autograd.gradcheck(squared, stored)
    assert torch.autograd.gradgradcheck(squared, stored)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype, device):
    stored = images(5, (2, 2, 5, 6), dtype, device).requires_grad_()
    params = random_params(5, 2, (5, 6), torch.float32).to(device)
    rows, parts = torch.tensor([1, 0, 1], device=device), torch.tensor([[1, 3], [0, 0], [1, 3]], device=device)
    fill = torch.rand(2, device=device)
    for linear in (False, True):
        opcheck(torch.ops.fastdd.augment_stored, (stored, params, rows, linear, 2, parts, fill), dtype)
    opcheck(torch.ops.fastdd.augment_stored, (stored, params[:1], None, False, 2, None, None), dtype)
    g = images(6, (3, 2, 5, 6), dtype, device).requires_grad_()
    opcheck(torch.ops.fastdd.augment_stored_adjoint, (g, params, rows, 2, 2, parts), dtype)


def test_whole_images_are_augmented_as_they_are():
    stored, params = images(7, (3, 3, 8, 8), torch.float32), random_params(7, 3, (8, 8), torch.float32)
    assert torch.equal(augment_stored(stored, params, factor=1), augment(stored, params))
    channels_last = stored.to(memory_format=torch.channels_last)
    assert torch.equal(augment_stored(channels_last, params, factor=1), augment(stored, params))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, p: augment_stored(x, p, factor=5), "factor must be 1 to 4"),
        (lambda x, p: augment_stored(x, p[:2], factor=2), "params have 2 rows for 12 images"),
        (lambda x, p: augment_stored(x, p, torch.tensor([0]), factor=2), "rows must be int64 .12."),
        (lambda x, p: augment_stored(x, p / 0, torch.zeros(12).long(), factor=2), "params row 0 is not finite"),
        (lambda x, p: augment_stored(x, p, torch.full((12,), 9), factor=2), "rows must be in 0..2"),
    ],
)
def test_one_line_for_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call(torch.zeros(3, 2, 4, 6), random_params(8, 3, (4, 6)))
    assert "\n" not in str(raised.value)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(32, 32), (224, 224)])
def test_gpu_agrees_with_the_reference(size):
    # The last no longer fits shared memory in float64 and takes the other path.
    stored, params = images(9, (2, 3, *size)), random_params(9, 8, size)
    expected = augment_stored(stored, params, factor=2, backend="reference")
    torch.testing.assert_close(
        augment_stored(stored.cuda(), params.cuda(), factor=2).cpu(), expected, rtol=0, atol=1e-10
    )
