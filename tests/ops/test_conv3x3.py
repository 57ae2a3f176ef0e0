import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastdd import models, ops
from fastdd.core import ext as _ext
from fastdd.ops import conv3x3, group_grad

# Of 64 channels and more by tiles of 2x4 pixels; to 3 channels, and from 3 back, what neighbours gather.
SHAPES = [(5, 3, 128, 32, 32), (4, 128, 128, 16, 16), (6, 64, 96, 8, 8), (3, 17, 40, 7, 5), (2, 2, 5, 3, 4)]
SHAPES += [(3, 96, 40, 7, 11), (3, 40, 3, 9, 6), (9, 70, 33, 15, 17)]  # the last's filters' gradient by tiles of 4x4


def any_case(**channels):
    sizes = {"n": st.integers(1, 5), "height": st.integers(1, 11), "width": st.integers(1, 11)}
    return given(seed=st.integers(0, 1000), **sizes, **channels)


def plain(x, filters, bias):
    return F.conv2d(x, filters, bias, padding=1)


def case(seed, n, inputs, outputs, height, width):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, height, width, generator=generator)
    filters = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    return x, filters, torch.randn(outputs, generator=generator)


def derivatives(function, x, filters, bias, seed=7, integers=True):
    """Output, first derivatives of a random functional of it, second derivatives of one of those.

    Of small integers plain PyTorch's convolutions are exact: its error then says nothing about what can be asked for.
    """
    inputs = [t.detach().clone().requires_grad_() for t in (x, filters, bias)]
    generator = torch.Generator().manual_seed(seed)

    def random(t):
        if integers:
            return torch.randint(-2, 3, t.shape, generator=generator).to(t.dtype)
        return torch.randn(t.shape, generator=generator).to(t.dtype)

    y = function(*inputs)
    g = random(y).requires_grad_()
    first = torch.autograd.grad(y, inputs, g, create_graph=True)
    second = torch.autograd.grad(first, [g, *inputs[:2]], [random(t) for t in first])
    return [y, *first, *second]


@pytest.mark.parametrize("shape", SHAPES)
def test_error_is_at_most_twice_plain_torchs(shape):
    inputs = case(0, *shape)
    exact = derivatives(plain, *(t.double() for t in inputs), integers=False)
    names = ["y", "dx", "dw", "db", "to g", "to x", "to w"]
    for name, ours, theirs, truth in zip(
        names,
        derivatives(conv3x3, *inputs, integers=False),
        derivatives(plain, *inputs, integers=False),
        exact,
        strict=True,
    ):
        error, allowed = (ours.double() - truth).norm(), (theirs.double() - truth).norm()
        assert error <= 2 * allowed + 1e-7 * truth.norm(), (name, error, allowed)


@settings(deadline=None, max_examples=60)
@any_case(inputs=st.integers(1, 40), outputs=st.integers(1, 60))
def test_small_integers_are_exact_to_second_order(seed, n, inputs, outputs, height, width):
    """Below 64 channels tiles are 2x2: Winograd's quarters and sums of small integers fit float32's mantissa."""
    generator = torch.Generator().manual_seed(seed)

    def integers(*shape):
        return torch.randint(-2, 3, shape, generator=generator).float()

    tensors = integers(n, inputs, height, width), integers(outputs, inputs, 3, 3), integers(outputs)
    got = derivatives(conv3x3, *tensors)
    expected = derivatives(plain, *(t.double() for t in tensors))
    for ours, truth in zip(got, expected, strict=True):
        assert ours.shape == truth.shape
        assert torch.equal(ours.double(), truth)


@settings(deadline=None, max_examples=25)
@any_case(inputs=st.integers(64, 101), outputs=st.integers(1, 70))
def test_any_shape_of_many_channels(seed, n, inputs, outputs, height, width):
    tensors = case(seed, n, inputs, outputs, height, width)
    got, exact = conv3x3(*tensors), plain(*(t.double() for t in tensors))
    assert got.shape == exact.shape
    assert (got - exact).abs().max() <= 2e-5 * exact.abs().max()


@settings(deadline=None, max_examples=25)
@any_case(inputs=st.integers(64, 101), outputs=st.integers(1, 70), many=st.booleans())
def test_any_shape_of_many_channels_filters_gradient(seed, n, inputs, outputs, height, width, many):
    """By tiles of 4x4 pixels where there are 2,048 of them."""
    n = n + 2048 // (height * width) if many else n
    x, filters, _ = case(seed, n, inputs, outputs, height, width)
    g = torch.randn(n, outputs, height, width, generator=torch.Generator().manual_seed(seed + 1))
    exact = torch.nn.grad.conv2d_weight(x.double(), filters.shape, g.double(), padding=1)
    leaf = filters.requires_grad_()
    (got,) = torch.autograd.grad(conv3x3(x, leaf), leaf, g)
    assert (got - exact).abs().max() <= 2e-5 * exact.abs().max()


def test_an_image_is_convolved_alike_in_any_batch_and_turned_round():
    for inputs, outputs in ((70, 33), (40, 3)):
        x, filters, _ = case(5, 9, inputs, outputs, 10, 13)
        y = conv3x3(x, filters)
        assert torch.equal(torch.cat([conv3x3(some, filters) for some in x.split([1, 3, 5])]), y)
        if _ext.available():
            turned = filters.transpose(0, 1).flip(2, 3)
            back = torch.ops.fastdd.conv3x3(x.permute(0, 2, 3, 1), turned, None, True)
            assert torch.equal(back.permute(0, 3, 1, 2), y)


def test_more_tiles_than_a_block_of_the_weight_gradient():
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randint(-2, 3, s, generator=generator).float() for s in ((3, 16, 31, 33), (8, 16, 3, 3), (8,))]
    expected = derivatives(plain, *(t.double() for t in tensors))
    for ours, truth in zip(derivatives(conv3x3, *tensors), expected, strict=True):
        assert torch.equal(ours.double(), truth)


def test_no_images():
    for inputs in (3, 16):
        leaves = [torch.randn(s, requires_grad=True) for s in ((0, inputs, 4, 4), (5, inputs, 3, 3), (5,))]
        y = conv3x3(*leaves)
        assert y.shape == (0, 5, 4, 4)
        to_x, *others = torch.autograd.grad(y.sum(), leaves)
        assert to_x.shape == (0, inputs, 4, 4)
        assert all(torch.equal(got, torch.zeros_like(leaf)) for got, leaf in zip(others, leaves[1:], strict=True))


def test_any_order_of_derivative():
    x, filters, bias = (t.round().requires_grad_() for t in case(2, 2, 3, 4, 5, 5))
    value, truth = conv3x3(x, filters, bias), plain(x.double(), filters.double(), bias.double())
    for wanted in (filters, x, filters):
        (value,) = torch.autograd.grad(value.square().sum(), wanted, create_graph=True)
        (truth,) = torch.autograd.grad(truth.square().sum(), wanted, create_graph=True)
    assert (value - truth).norm() <= 1e-5 * truth.norm()


@pytest.mark.parametrize("inputs", [3, 20])
def test_opcheck(inputs):
    x = torch.randn(2, 5, 4, inputs, requires_grad=True)
    filters = torch.randn(6, inputs, 3, 3, requires_grad=True)
    bias, g = torch.randn(6, requires_grad=True), torch.randn(2, 5, 4, 6, requires_grad=True)
    torch.library.opcheck(torch.ops.fastdd.conv3x3, (x, filters, bias, False))
    torch.library.opcheck(torch.ops.fastdd.conv3x3, (g, filters, None, True))
    torch.library.opcheck(torch.ops.fastdd.conv3x3_weight, (x, g))


@pytest.mark.skipif(not _ext.available(), reason="PyTorch's own convolutions promise no such thing")
@pytest.mark.parametrize("inputs", [3, 32, 65])
def test_two_runs_and_any_number_of_threads_are_bitwise_equal(inputs):
    tensors = case(3, 21, inputs, 48, 12, 12)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(derivatives(conv3x3, *tensors))
    finally:
        torch.set_num_threads(before)
    # The bias's gradient is torch's own sum.
    for place in (0, 1, 2, 4, 5, 6):
        assert all(torch.equal(results[0][place], other[place]) for other in results[1:])


def test_strides_do_not_matter():
    x, filters, bias = case(4, 4, 16, 24, 8, 8)
    expected = conv3x3(x, filters, bias)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv3x3(x.contiguous(memory_format=torch.channels_last), filters, bias), expected)
    assert torch.equal(conv3x3(torch.stack([x, x], -1)[..., 0], filters, bias), expected)
    assert torch.equal(conv3x3(x, filters.contiguous(memory_format=torch.channels_last), bias), expected)
    one = x[:1].expand(4, 16, 8, 8)
    assert torch.equal(conv3x3(one, filters, bias), conv3x3(one.contiguous(), filters, bias))
    # Gradients of sums arrive with stride 0.
    gradients = []
    for g in (torch.ones(()).expand(expected.shape), torch.ones_like(expected)):
        leaf = filters.clone().requires_grad_()
        gradients += torch.autograd.grad(conv3x3(x, leaf), leaf, g)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_and_the_reference_are_plain_torch(dtype):
    tensors = [t.to(dtype) for t in case(5, 3, 16, 24, 8, 8)]
    assert torch.equal(conv3x3(*tensors), plain(*tensors))
    assert torch.equal(conv3x3(*tensors, backend="reference"), plain(*tensors))


def test_what_does_not_fit_is_refused():
    x, filters = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 3, 3)
    with pytest.raises(TypeError, match=r"floating point, not torch\.int64"):
        conv3x3(x.long(), filters)
    with pytest.raises(ValueError, match=r"\[N, I, H, W\], not \[2, 4, 4\]"):
        conv3x3(x[0], filters)
    with pytest.raises(ValueError, match=r"\[O, 2, 3, 3\], not \[3, 2, 5, 5\]"):
        conv3x3(x, torch.zeros(3, 2, 5, 5))
    with pytest.raises(ValueError, match=r"bias must be \[3\], not \[2\]"):
        conv3x3(x, filters, torch.zeros(2))
    with pytest.raises(TypeError, match=r"filters are torch\.float64 and x is torch\.float32"):
        conv3x3(x, filters.double())
    with pytest.raises(RuntimeError, match="conv3x3 has no such kernel for cpu tensors"):
        conv3x3(x, filters, backend="triton")


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 3},
        {"padding": 0},
        {"padding": "same"},
        {"padding": (1, 2)},
        {"padding": 1, "stride": 2},
        {"padding": 1, "dilation": 2},
        {"padding": 1, "groups": 2},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 1, "bias": False},
        {"padding": 2, "kernel_size": 5},
    ],
)
def test_layer_is_nn_conv2d(options):
    options = {"kernel_size": 3, **options}
    layer, other = ops.Conv2d(4, 6, **options), nn.Conv2d(4, 6, **options)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 4, 8, 9)
    results = []
    for module in (layer, other):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        results.append([y, *torch.autograd.grad(y.square().sum(), [leaf, *module.parameters()])])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    assert torch.equal(layer(x[0]), other(x[0]))


def test_layer_follows_the_backend_and_autocast(monkeypatch):
    layer, x = ops.Conv2d(16, 6, 3, padding=1), torch.randn(3, 16, 8, 8)
    assert layer.fits(x) == _ext.available()
    assert not layer.fits(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    monkeypatch.setenv("FASTDD_BACKEND", "reference")
    assert not layer.fits(x)


@pytest.mark.parametrize("method", ["slices", "fused"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_a_network(channels, method):
    net = models.build("ConvNet", channels, 4, (16, 16), width=24, depth=2)
    images, labels = torch.randn(7, channels, 16, 16), torch.arange(7) % 4
    offsets = torch.tensor([0, 2, 7])
    got = group_grad(net, images, labels, offsets, method=method)
    exact = group_grad(net.double(), images.double(), labels, offsets, method=method)
    for name, truth in exact.items():
        assert (got[name].double() - truth).norm() <= 1e-5 * truth.norm()


def test_a_network_compiles_without_graph_breaks():
    net, images = models.build("ConvNet", 3, 4, (16, 16), width=24, depth=2), torch.randn(3, 3, 16, 16)
    results = []
    for function in (net, torch.compile(net, backend="aot_eager", fullgraph=True)):
        results.append(torch.autograd.grad(function(images).square().sum(), [*net.parameters()]))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
