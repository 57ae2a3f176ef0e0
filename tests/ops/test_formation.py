import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from opchecks import opcheck

from fastdd.ops.formation import all_parts, formation, formation_adjoint

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BACKENDS = ["auto", "reference"]


def padded(stored, factor, fill):
    """Below and to the right, up to the next multiple of the factor."""
    n, channels, height, width = stored.shape
    fill = torch.as_tensor(fill, dtype=stored.dtype, device=stored.device).expand(channels)
    whole = fill[:, None, None].expand(channels, height + -height % factor, width + -width % factor)
    whole = whole.expand(n, *whole.shape).clone()
    whole[:, :, :height, :width] = stored
    return whole


def cut(stored, factor, parts, fill):
    """The parts, one after the other."""
    whole = padded(stored, factor, fill)
    h, w = (side // factor for side in whole.shape[2:])
    cuts = []
    for image, part in parts.tolist():
        i, j = divmod(part, factor)
        cuts.append(whole[image, :, i * h : (i + 1) * h, j * w : (j + 1) * w])
    return torch.stack(cuts)


def published_order(n, factor):
    return torch.tensor([(image, part) for part in range(factor**2) for image in range(n)]).view(-1, 2)


def plain(stored, factor, parts, fill, size):
    """What anyone would write, in stored's dtype."""
    return F.interpolate(cut(stored, factor, parts, fill), size, mode="bilinear")


def literal(stored, factor, parts, fill, size):
    """Pixel after pixel, in float64."""
    cuts = cut(stored.double(), factor, parts, fill)
    out = cuts.new_empty(*cuts.shape[:2], *size)
    sides = cuts.shape[2:]
    at = [[max((y + 0.5) * old / new - 0.5, 0.0) for y in range(new)] for old, new in zip(sides, size, strict=True)]
    for y, row in enumerate(at[0]):
        for x, column in enumerate(at[1]):
            top, left = int(row), int(column)
            bottom, right = min(top + 1, sides[0] - 1), min(left + 1, sides[1] - 1)
            b, r = row - top, column - left
            upper = cuts[..., top, left] * (1 - r) + cuts[..., top, right] * r
            lower = cuts[..., bottom, left] * (1 - r) + cuts[..., bottom, right] * r
            out[..., y, x] = upper * (1 - b) + lower * b
    return out


def images(seed, shape, dtype=torch.float64, device="cpu"):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("size", "factor", "to"),
    [
        ((8, 8), 2, None),
        ((9, 9), 2, None),
        ((7, 7), 3, None),
        ((4, 6), 1, None),
        ((5, 11), 4, None),
        ((6, 6), 2, (9, 4)),
    ],
)
def test_every_pixel_in_float64(size, factor, to, backend, device):
    stored, fill = images(0, (3, 2, *size), device=device), torch.tensor([0.5, -2.0], device=device)
    expected = literal(stored, factor, published_order(3, factor), fill, to or size)
    got = formation(stored, factor, fill=fill, size=to, backend=backend)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)
    together = all_parts(3, factor, device)
    got = formation(stored, factor, together, fill=fill, size=to, backend=backend)
    by_image = expected.unflatten(0, (factor**2, 3)).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(got, by_image, rtol=0, atol=1e-14)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 4),
    channels=st.integers(1, 4),
    height=st.integers(1, 19),
    width=st.integers(1, 37),
    factor=st.integers(1, 6),
    to=st.one_of(st.none(), st.tuples(st.integers(1, 40), st.integers(1, 40))),
    chosen=st.one_of(st.none(), st.integers(0, 9)),
)
def test_any_shape_and_any_parts(seed, n, channels, height, width, factor, to, chosen):
    factor = min(factor, height, width)
    generator = torch.Generator().manual_seed(seed)
    stored, parts = images(seed, (n, channels, height, width)), None
    if chosen is not None and n:
        parts = all_parts(n, factor)[torch.randint(n * factor**2, (chosen,), generator=generator)]
    got = formation(stored, factor, parts, size=to)
    named = published_order(n, factor) if parts is None else parts
    size = (height, width) if to is None else to
    assert got.shape == (len(named), channels, *size)
    torch.testing.assert_close(
        got, formation(stored, factor, parts, size=to, backend="reference"), rtol=1e-13, atol=1e-13
    )
    if len(named):
        torch.testing.assert_close(got, plain(stored, factor, named, 0.5, size), rtol=1e-13, atol=1e-13)
    # <formation(x), g> = <x, adjoint(g)>, for an image and for a gradient of every kind.
    g = images(seed + 1, got.shape)
    adjoint = formation_adjoint(g, n, (height, width), factor, parts)
    reference = formation_adjoint(g, n, (height, width), factor, parts, backend="reference")
    torch.testing.assert_close(adjoint, reference, rtol=1e-12, atol=1e-12)
    product = (formation(stored, factor, parts, fill=0.0, size=to) * g).sum()
    torch.testing.assert_close(product, (stored * adjoint).sum(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("side", "factor"), [(32, 2), (28, 3), (17, 5)])
def test_error_is_at_most_twice_plain_torchs(side, factor, dtype, device):
    stored, parts = images(2, (8, 3, side, side), dtype, device), all_parts(8, factor, device)
    size = (side, side)
    exact = plain(stored.double(), factor, parts, 0.5, size)
    error = (formation(stored, factor, parts).double() - exact).abs().max()
    assert error <= 2 * (plain(stored, factor, parts, 0.5, size).double() - exact).abs().max()
    leaf, g = stored.double().requires_grad_(), images(3, exact.shape, dtype, device)
    (exact,) = torch.autograd.grad(plain(leaf, factor, parts, 0.5, size), leaf, g.double())
    leaf = stored.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(plain(leaf, factor, parts, 0.5, size), leaf, g)
    (ours,) = torch.autograd.grad(formation(leaf, factor, parts), leaf, g)
    assert (ours.double() - exact).abs().max() <= 2 * (theirs.double() - exact).abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_derivatives_of_any_order(backend, device):
    stored = images(4, (2, 2, 5, 4), device=device).requires_grad_()
    parts = torch.tensor([[1, 3], [0, 0], [1, 3]], device=device)

    def squared(x):
        return formation(x, 2, parts, size=(3, 6), backend=backend).square()

    assert torch.autograd.gradcheck(squared, stored)
    assert torch.autograd.gradgradcheck(squared, stored)
    g = images(5, (3, 2, 3, 6), device=device).requires_grad_()
    adjoint = lambda g: formation_adjoint(g, 2, (5, 4), 2, parts, backend=backend).square()  # noqa: E731
    assert torch.autograd.gradcheck(adjoint, g)
    assert torch.autograd.gradgradcheck(adjoint, g)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype, device):
    stored = images(6, (3, 2, 5, 6), dtype, device).requires_grad_()
    parts, fill = torch.tensor([[2, 1], [0, 3]], device=device), torch.rand(2, device=device)
    opcheck(torch.ops.fastdd.formation, (stored, 2, parts, fill, [4, 7]), dtype)
    opcheck(torch.ops.fastdd.formation, (stored, 3, None, None, [5, 6]), dtype)
    g = images(7, (2, 2, 4, 7), dtype, device).requires_grad_()
    opcheck(torch.ops.fastdd.formation_adjoint, (g, 3, 5, 6, 2, parts), dtype)
    opcheck(torch.ops.fastdd.formation_adjoint, (stored[:3], 3, 4, 9, 1, None), dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device):
    stored = images(8, (4, 3, 9, 7), torch.float32, device)
    expected = formation(stored, 2)
    assert torch.equal(formation(stored.to(memory_format=torch.channels_last), 2), expected)
    assert torch.equal(formation(stored[:1].expand(4, -1, -1, -1), 2)[1::4], expected[::4])
    g = images(9, expected.shape, torch.float32, device)
    backwards = formation_adjoint(g, 4, (9, 7), 2)
    assert torch.equal(formation_adjoint(g.to(memory_format=torch.channels_last), 4, (9, 7), 2), backwards)
    assert torch.equal(formation_adjoint(g, 4, (9, 7), 2), backwards)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: formation(x, 0), "factor must be 1 to 4"),
        (lambda x: formation(x, 5), "factor must be 1 to 4, the side of images of 4 x 6, not 5"),
        (lambda x: formation(x[0], 2), "must be images"),
        (lambda x: formation(x, 2, torch.tensor([[0, 4]])), "parts of an image must be from 0 to 3; got 4"),
        (lambda x: formation(x, 2, torch.tensor([[-1, 0]])), "stored images of parts must be from 0 to 2; got -1"),
        (lambda x: formation(x, 2, torch.tensor([0])), "parts must be int64"),
        (lambda x: formation(x, 2, size=0), "size must be"),
        (lambda x: formation(x, 2, fill=torch.zeros(3)), "fill must be"),
        (lambda x: formation_adjoint(x, 3, (4, 6), 2), "12 decoded images, not 3"),
        (lambda x: formation_adjoint(x, 3, (4, 6), 7), "factor must be 1 to 4"),
    ],
)
def test_one_line_for_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        call(torch.zeros(3, 2, 4, 6))
    assert "\n" not in str(raised.value)


def test_types_are_told():
    with pytest.raises(TypeError, match=r"not torch\.uint8"):
        formation(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), 1)
    with pytest.raises(TypeError, match="whole number"):
        formation(torch.zeros(1, 1, 2, 2), 2.0)


def test_results_do_not_depend_on_the_number_of_threads():
    stored, g = images(10, (9, 3, 32, 32), torch.float32), images(11, (36, 3, 32, 32), torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append((formation(stored, 2), formation_adjoint(g, 9, (32, 32), 2)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_an_address_that_comes_several_times_is_summed():
    parts = torch.tensor([[0, 2], [1, 1], [0, 2], [0, 2]])
    g = images(12, (4, 1, 5, 5), torch.float32) * torch.tensor([1e4, 1.0, 1.0, -1e4]).view(-1, 1, 1, 1)
    got = formation_adjoint(g, 2, (5, 5), 2, parts)
    exact = formation_adjoint(g.double(), 2, (5, 5), 2, parts, backend="reference")
    # Of at most 3 x 9 products, each rounded, and added one after the other.
    most = 28 * 2.0**-24 * formation_adjoint(g.double().abs(), 2, (5, 5), 2, parts, backend="reference")
    assert ((got.double() - exact).abs() <= most).all()
    assert got[0, :, :3].abs().max() == 0


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(32, 32), (28, 31), (225, 224)])
def test_gpu_agrees_with_the_reference(size):
    stored, parts = images(13, (3, 3, *size)), all_parts(3, 3).flip(0)
    for which in (None, parts, parts[:5]):
        expected = formation(stored, 3, which, backend="reference")
        named = None if which is None else which.cuda()
        torch.testing.assert_close(formation(stored.cuda(), 3, named).cpu(), expected, rtol=0, atol=1e-12)
        back = formation_adjoint(expected, 3, size, 3, which, backend="reference")
        got = formation_adjoint(expected.cuda(), 3, size, 3, named).cpu()
        torch.testing.assert_close(got, back, rtol=0, atol=1e-10)
