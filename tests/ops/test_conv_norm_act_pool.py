import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdd import models
from fastdd.core import ext as _ext
from fastdd.ops import conv_norm_act_pool

POOLS = ["avg", "max", "none"]


def plain(x, filters, shift, weight, bias, pool):
    """The layers of the published network."""
    y = F.relu(F.group_norm(F.conv2d(x, filters, shift, padding=1), len(filters), weight, bias))
    return {"avg": lambda: F.avg_pool2d(y, 2), "max": lambda: F.max_pool2d(y, 2), "none": lambda: y}[pool]()


def ours(x, filters, shift, weight, bias, pool):
    return conv_norm_act_pool(x, filters, weight, bias, shift=shift, pool=pool)


def case(seed, n, inputs, outputs, height, width):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, height, width, generator=generator)
    filters = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    return [x, filters, *(torch.randn(outputs, generator=generator) for _ in range(3))]


def gradients(function, tensors, pool, images=False, seed=3):
    """Output and first derivatives; the images' only if asked for, as training does not need it."""
    leaves = [t.clone().requires_grad_(images or place > 0) for place, t in enumerate(tensors)]
    y = function(*leaves, pool)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(y.dtype)
    return [y, *torch.autograd.grad(y, leaves if images else leaves[1:], g)]


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("shape", [(5, 3, 128, 32, 32), (17, 1, 64, 16, 16), (3, 3, 21, 9, 7)])
def test_error_is_at_most_twice_plain_torchs(shape, pool, images):
    tensors = case(0, *shape)
    exact = gradients(plain, [t.double() for t in tensors], pool, images)
    got, theirs = gradients(ours, tensors, pool, images), gradients(plain, tensors, pool, images)
    shift = 2 + images
    assert got.pop(shift).abs().max() == 0
    for others in (exact, theirs):
        others.pop(shift)
    for place, (mine, other, truth) in enumerate(zip(got, theirs, exact, strict=True)):
        error, allowed = (mine.double() - truth).norm(), (other.double() - truth).norm()
        # A pixel that rounds across zero has a gradient or none, which is no rounding error of the sums.
        assert error <= 2 * allowed + 1e-6 * truth.norm(), (place, error, allowed)


def image_gradient(function, tensors, pool, seed=3):
    """That of the images alone: the parameters are constants."""
    x = tensors[0].clone().requires_grad_()
    y = function(x, *tensors[1:], pool)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(y.dtype)
    return torch.autograd.grad(y, x, g)[0]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    "shape", [(5, 3, 128, 32, 32), (3, 1, 64, 16, 16), (3, 3, 21, 9, 7), (2, 9, 33, 6, 5), (4, 3, 8, 8, 8)]
)
def test_images_gradient_of_constant_parameters(shape, pool):
    tensors = case(5, *shape)
    got, theirs = image_gradient(ours, tensors, pool), image_gradient(plain, tensors, pool)
    truth = image_gradient(plain, [t.double() for t in tensors], pool)
    error, allowed = (got.double() - truth).norm(), (theirs.double() - truth).norm()
    assert error <= 2 * allowed + 1e-6 * truth.norm()
    both = gradients(ours, tensors, pool, images=True)[1]  # by separate ops: the same kernels
    assert not _ext.available() or torch.equal(got, both)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 20),
    inputs=st.integers(1, 18),
    outputs=st.integers(1, 40),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    pool=st.sampled_from(POOLS),
)
def test_any_shape(seed, n, inputs, outputs, height, width, pool):
    tensors = case(seed, n, inputs, outputs, height, width)
    got = gradients(ours, tensors, pool)
    separate = gradients(
        lambda *t: conv_norm_act_pool(*t[:2], *t[3:5], shift=t[2], pool=t[5], backend="reference"),
        [t.double() for t in tensors],
        pool,
    )
    for place, (mine, truth) in enumerate(zip(got, separate, strict=True)):
        assert mine.shape == truth.shape
        if place != 2 and mine.numel():
            assert torch.isfinite(mine).all()
    assert n == 0 or (got[0].double() - separate[0]).abs().max() <= 1e-4 * (1 + separate[0].abs().max())


@pytest.mark.parametrize("images", [False, True])
def test_second_derivatives(images):
    """Of a function of the first derivatives, as gradient matching takes them."""
    tensors = case(1, 3, 3, 8, 6, 6)
    results = []
    for function, dtype in ((ours, torch.float32), (plain, torch.float64)):
        leaves = [t.to(dtype).requires_grad_(images or place > 0) for place, t in enumerate(tensors)]
        wanted = [leaves[1], *leaves[3:]]
        y = function(*leaves, "avg")
        first = torch.autograd.grad(y.square().sum(), wanted, create_graph=True)
        targets = [*wanted, *leaves[:1]] if images else wanted
        results.append(torch.autograd.grad(sum(t.square().sum() for t in first), targets))
    for got, truth in zip(*results, strict=True):
        assert (got - truth).norm() <= 1e-4 * truth.norm()


def test_opcheck():
    x = torch.randn(2, 5, 4, 3)
    filters, shift, weight, bias = (t.requires_grad_() for t in case(2, 1, 3, 6, 2, 2)[1:])
    torch.library.opcheck(torch.ops.fastdd.conv_norm_act_pool, (x, filters, shift, weight, bias, 1e-5, "avg"))
    x.requires_grad_()
    torch.library.opcheck(torch.ops.fastdd.conv_norm_act_pool, (x, filters, None, weight, bias, 1e-5, "max"))
    y, stats = torch.ops.fastdd.conv_norm_act_pool(x, filters, None, weight, bias, 1e-5, "avg")
    tensors = [t.detach() for t in (y, x, filters, weight, bias, stats)]
    torch.library.opcheck(torch.ops.fastdd.conv_norm_act_pool_backward, (*tensors, "avg"))
    torch.library.opcheck(torch.ops.fastdd.conv_norm_act_pool_image_gradient, (*tensors, "avg"))


@pytest.mark.skipif(not _ext.available(), reason="PyTorch's own convolutions promise no such thing")
def test_two_runs_and_any_number_of_threads_are_bitwise_equal():
    tensors, before, results = case(3, 37, 3, 48, 12, 12), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append([*gradients(ours, tensors, "avg"), image_gradient(ours, tensors, "avg")])
    finally:
        torch.set_num_threads(before)
    for first, *others in zip(*results, strict=True):
        assert all(torch.equal(first, other) for other in others)


def test_strides_do_not_matter():
    x, *rest = case(4, 4, 3, 24, 8, 8)
    expected = ours(x, *rest, "avg")
    assert expected.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours(x.contiguous(memory_format=torch.channels_last), *rest, "avg"), expected)
    assert torch.equal(ours(torch.stack([x, x], -1)[..., 0], *rest, "avg"), expected)
    leaves = [torch.nn.Parameter(rest[0].clone()) for _ in range(2)]
    ours(x, leaves[0], *rest[1:], "avg").sum().backward()
    ours(x, leaves[1], *rest[1:], "avg").backward(torch.ones_like(expected))
    assert torch.equal(leaves[0].grad, leaves[1].grad)


def test_a_network_trains_as_with_separate_layers():
    """Every parameter gets a gradient, the convolution's bias of the first block, which the norm undoes, of zero."""
    net = models.build("ConvNet", 3, 4, (16, 16), width=24, depth=2)
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    net(x).square().sum().backward()
    got = {name: p.grad.double() for name, p in net.named_parameters()}
    net.zero_grad()
    net.double()(x.double()).square().sum().backward()
    for name, p in net.named_parameters():
        if name.startswith("features") and name.endswith("bias") and got[name].norm() < 1e-3:
            continue
        assert (got[name] - p.grad).norm() <= 1e-4 * p.grad.norm(), name
    assert not _ext.available() or got["features.0.bias"].abs().max() == 0


def test_what_does_not_fit_is_refused():
    x, filters, ones = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 3, 3), torch.ones(3)
    with pytest.raises(ValueError, match=r"\[O, 2, 3, 3\], not \[3, 1, 3, 3\]"):
        conv_norm_act_pool(x, filters[:, :1], ones, ones)
    with pytest.raises(ValueError, match="one of avg, max, none, not 'mean'"):
        conv_norm_act_pool(x, filters, ones, ones, pool="mean")
    with pytest.raises(ValueError, match="1x4 pixels are too small"):
        conv_norm_act_pool(x[:, :, :1], filters, ones, ones)
    with pytest.raises(RuntimeError, match="has no such kernel for cpu tensors"):
        conv_norm_act_pool(x, filters, ones, ones, backend="triton")
