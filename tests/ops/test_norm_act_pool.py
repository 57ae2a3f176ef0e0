import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from opchecks import opcheck

from fastdd.ops.norm_act_pool import norm_act_pool

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
POOLS = ["avg", "max", "none"]


def plain(x, weight, bias, pool, eps=1e-5):
    """The layers of the published network."""
    y = F.relu(F.instance_norm(x, weight=weight.to(x.dtype), bias=bias.to(x.dtype), eps=eps))
    return {"avg": lambda: F.avg_pool2d(y, 2), "max": lambda: F.max_pool2d(y, 2), "none": lambda: y}[pool]()


def case(seed, shape, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1
    weight = torch.randn(shape[1], generator=generator, dtype=torch.float64)
    bias = torch.randn(shape[1], generator=generator, dtype=torch.float64) / 2
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return x.to(device, dtype), weight.to(device, wide), bias.to(device, wide)


def derivatives(function, x, weight, bias, seed=7):
    """Output, first derivatives of a random functional of it, second derivatives of a random functional of those."""
    inputs = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    generator = torch.Generator().manual_seed(seed)

    def random(t):
        return torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.device, t.dtype)

    y = function(*inputs)
    g = random(y).requires_grad_()
    first = torch.autograd.grad(y, inputs, g, create_graph=True)
    second = torch.autograd.grad(first, [g, *inputs[:2]], [random(t) for t in first])
    return [y, *first, *second]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (3, 16, 6, 8), (2, 21, 5, 7), (1, 128, 8, 8), (1, 1, 2, 3)])
def test_equals_the_separate_layers_to_second_order(shape, pool, backend, device):
    x, weight, bias = case(0, shape, device=device)
    got = derivatives(lambda *t: norm_act_pool(*t, pool=pool, backend=backend), x, weight, bias)
    expected = derivatives(lambda *t: plain(*t, pool), x, weight, bias)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max().clamp(min=1)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 4),
    channels=st.integers(1, 40),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    pool=st.sampled_from(POOLS),
)
def test_any_shape(seed, n, channels, height, width, pool):
    x, weight, bias = case(seed, (n, channels, height, width))
    got = derivatives(lambda *t: norm_act_pool(*t, pool=pool), x, weight, bias)
    expected = derivatives(lambda *t: norm_act_pool(*t, pool=pool, backend="reference"), x, weight, bias)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        if n:
            assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max().clamp(min=1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8, 32, 16, 16), (2, 24, 64, 64)])
def test_error_is_at_most_twice_plain_torchs(shape, dtype, pool, device):
    # Every pixel clearly on or off: one that rounds across zero would compare a gradient with none.
    x, weight, bias = case(1, shape, torch.float64, device)
    x = (x.sign() + 0.1 * x).to(dtype)
    weight = (weight.sign() + 0.2 * weight).float()
    bias = (0.1 * bias).float()
    z = F.group_norm(x.double(), shape[1], weight.double(), bias.double())
    assert z.abs().min() > 0.02
    exact = derivatives(lambda *t: plain(*t, pool), x.double(), weight.double(), bias.double())
    ours = derivatives(lambda *t: norm_act_pool(*t, pool=pool), x, weight, bias)
    theirs = derivatives(lambda *t: plain(*t, pool), x, weight, bias)
    names = ["y", "dx", "dw", "db", "to g", "to x", "to w"]
    for name, a, b, c in zip(names, ours, theirs, exact, strict=True):
        error, allowed = (a.double() - c).norm(), (b.double() - c).norm()
        assert error <= 2 * allowed + 1e-7 * c.norm(), (name, error, allowed)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pool", POOLS)
def test_gradcheck(pool, device):
    inputs = [t.requires_grad_() for t in case(2, (2, 3, 4, 5), device=device)]
    assert torch.autograd.gradcheck(lambda *t: norm_act_pool(*t, pool=pool), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: norm_act_pool(*t, pool=pool), inputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype, device):
    x, weight, bias = case(3, (2, 4, 4, 5), dtype, device)
    x = x.permute(0, 2, 3, 1)
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    opcheck(torch.ops.fastdd.norm_act_pool, (*leaves, 1e-5, "avg"), dtype)
    y, stats = torch.ops.fastdd.norm_act_pool(x, weight, bias, 1e-5, "avg")
    opcheck(torch.ops.fastdd.norm_act_pool_backward, (y.clone().requires_grad_(), *leaves, stats, "avg"), dtype)
    opcheck(torch.ops.fastdd.norm_act_pool_double_backward, (x, weight, bias, y, x, weight, bias, stats, "max"), dtype)
    of_images = y.clone().requires_grad_(), leaves[0], weight, bias, stats, "avg"
    opcheck(torch.ops.fastdd.norm_act_pool_slope, of_images, dtype)
    opcheck(torch.ops.fastdd.norm_act_pool_slope_backward, (x, y, x, weight, bias, stats, "max"), dtype)


def test_the_slope_alone_has_the_derivatives_of_the_whole():
    x, weight, bias = case(5, (2, 3, 4, 5), torch.float64, "cpu")
    x = x.permute(0, 2, 3, 1).contiguous().requires_grad_()
    y, stats = torch.ops.fastdd.norm_act_pool(x.detach(), weight, bias, 1e-5, "avg")
    g, u = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y).requires_grad_(), x.detach().sin()
    found = []
    for name in ("norm_act_pool_backward", "norm_act_pool_slope"):
        dx = getattr(torch.ops.fastdd, name)(g, x, weight, bias, stats, "avg")
        dx = dx if name.endswith("slope") else dx[0]
        found.append([dx, *torch.autograd.grad(dx, [g, x], u)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_and_memory_formats_do_not_matter(device):
    x, weight, bias = case(4, (4, 6, 8, 8), torch.float32, device)
    expected = norm_act_pool(x, weight, bias)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(norm_act_pool(x.contiguous(memory_format=torch.channels_last), weight, bias), expected)
    assert torch.equal(norm_act_pool(torch.stack([x, x], -1)[..., 0], weight, bias), expected)
    assert torch.equal(norm_act_pool(x, weight[:, None].expand(6, 3)[:, 1], bias), expected)
    one = x[:1].expand(4, 6, 8, 8)
    assert torch.equal(norm_act_pool(one, weight, bias), norm_act_pool(one.contiguous(), weight, bias))
    # Gradients of sums arrive with stride 0.
    leaf = x.clone().requires_grad_()
    norm_act_pool(leaf, weight, bias).sum().backward()
    again = x.clone().requires_grad_()
    norm_act_pool(again, weight, bias).backward(torch.ones_like(expected))
    assert torch.equal(leaf.grad, again.grad)


@pytest.mark.parametrize("pool", POOLS)
def test_results_do_not_depend_on_the_number_of_threads(pool):
    inputs = case(5, (9, 40, 12, 12), torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(derivatives(lambda *t: norm_act_pool(*t, pool=pool), *inputs))
    finally:
        torch.set_num_threads(before)
    for first, *others in zip(*results, strict=True):
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [16, 33, 48])
def test_a_large_mean_does_not_cancel_the_variance(device, size):
    x, weight, bias = case(6, (8, 64, size, size), torch.float32, device)
    x = x + 1000
    exact = plain(x.double(), weight.double(), bias.double(), "avg")
    error = (norm_act_pool(x, weight, bias).double() - exact).norm()
    assert error <= 2 * (plain(x, weight, bias, "avg").double() - exact).norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pool", POOLS)
def test_nan_is_handed_on(pool, device):
    x, weight, bias = case(9, (2, 3, 4, 4), torch.float32, device)
    x[1, 2, 3, 1] = torch.nan
    y = norm_act_pool(x, weight, bias, pool=pool)
    assert y[1, 2].isnan().all()
    assert not y[0].isnan().any()
    assert not y[1, :2].isnan().any()


def test_equal_pixels_give_zero_variance_and_finite_derivatives():
    x = torch.full((1, 2, 4, 4), 3.0, dtype=torch.float64)
    for value in derivatives(norm_act_pool, x, torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)):
        assert torch.isfinite(value).all()
    assert torch.equal(
        norm_act_pool(x, torch.ones(2).double(), torch.ones(2).double()), torch.ones(1, 2, 2, 2).double()
    )


def test_a_third_derivative_is_refused():
    x, weight, bias = (t.requires_grad_() for t in case(8, (1, 2, 2, 2)))
    (first,) = torch.autograd.grad(norm_act_pool(x, weight, bias).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="norm_act_pool_double_backward"):
        second.sum().backward()


def test_what_does_not_fit_is_refused():
    x, ones = torch.zeros(1, 2, 4, 4), torch.ones(2)
    with pytest.raises(TypeError, match=r"float32, float64 or bfloat16, not torch\.int64"):
        norm_act_pool(x.long(), ones, ones)
    with pytest.raises(ValueError, match=r"\[N, C, H, W\], not \[2, 4, 4\]"):
        norm_act_pool(x[0], ones, ones)
    with pytest.raises(ValueError, match="one of avg, max, none, not 'mean'"):
        norm_act_pool(x, ones, ones, pool="mean")
    with pytest.raises(ValueError, match="1x4 pixels are too small"):
        norm_act_pool(x[:, :, :1], ones, ones)
    with pytest.raises(ValueError, match=r"bias must be floating point \[2\]"):
        norm_act_pool(x, ones, torch.ones(3))
