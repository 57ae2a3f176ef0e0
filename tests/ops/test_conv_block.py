import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdd import models
from fastdd.ops import ConvBlock

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
POOLS = ["avg", "max", "none"]


def plain(x, filters, weight, bias, padding, pool):
    """The layers of the published network; the convolution's bias does not survive the norm."""
    z = F.conv2d(x, filters, padding=padding)
    y = F.relu(F.group_norm(z, len(filters), weight, bias))
    return {"avg": lambda: F.avg_pool2d(y, 2), "max": lambda: F.max_pool2d(y, 2), "none": lambda: y}[pool]()


def case(seed, n, inputs, outputs, height, width, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, height, width, generator=generator)
    filters = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    weight, bias = torch.randn(outputs, generator=generator), torch.randn(outputs, generator=generator)
    return [t.to(device) for t in (x, filters, weight, bias)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "padding"),
    [
        *((3, 128, 32, 1), (1, 64, 28, 3), (64, 128, 16, 1), (128, 128, 8, 1), (16, 40, 7, 1), (33, 20, 6, 1)),
        # Parts of an image at a time: strips of 4, 4, 4 and 1 tile rows, of one row of 65 tiles, panels of channels.
        *((16, 40, 26, 1), (16, 8, 130, 1), (3, 70, 64, 1)),
        # Tiles of 2x4 pixels: parts of tiles; strips of 4, 4, 4 and 3 rows of 8 tiles.
        *((70, 33, 7, 1), (64, 40, 30, 1)),
    ],
)
def test_error_is_at_most_twice_plain_torchs(inputs, outputs, size, padding, pool, device):
    x, *rest = case(0, 5, inputs, outputs, size, size, device)
    got = ConvBlock(*rest, padding=padding, pool=pool)(x)
    exact = plain(x.double(), *(t.double() for t in rest), padding, pool)
    torch_error = (plain(x, *rest, padding, pool).double() - exact).norm()
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert (got.double() - exact).norm() <= 2 * torch_error


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 6),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 70),
    height=st.integers(2, 11),
    width=st.integers(2, 11),
    padding=st.integers(1, 3),
    pool=st.sampled_from(POOLS),
)
def test_any_shape(seed, n, inputs, outputs, height, width, padding, pool):
    x, *rest = case(seed, n, inputs, outputs, height, width)
    got = ConvBlock(*rest, padding=padding, pool=pool)(x)
    exact = ConvBlock(*(t.double() for t in rest), padding=padding, pool=pool, backend="reference")(x.double())
    assert got.shape == exact.shape
    # Few pixels can have a variance so small that the norm blows rounding up; eps bounds that at 1 / sqrt(1e-5).
    assert n == 0 or (got.double() - exact).abs().max() <= 1e-4 * (1 + exact.abs().max())


@pytest.mark.parametrize("inputs", [3, 32, 64])
def test_two_runs_and_any_number_of_threads_are_bitwise_equal(inputs):
    x, *rest = case(1, 13, inputs, 48, 12, 12)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(ConvBlock(*rest)(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_strides_do_not_matter():
    x, *rest = case(2, 4, 16, 24, 8, 8)
    block = ConvBlock(*rest)
    expected = block(x)
    assert torch.equal(block(x.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(block(torch.stack([x, x], -1)[..., 0]), expected)
    one = x[:1].expand(4, 16, 8, 8)
    assert torch.equal(block(one), block(one.contiguous()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_the_layers_one_after_the_other(dtype):
    x, filters, weight, bias = case(3, 3, 16, 24, 8, 8)
    got = ConvBlock(filters.to(dtype), weight, bias)(x.to(dtype))
    expected = plain(x.to(dtype).double(), filters.to(dtype).double(), weight.double(), bias.double(), 1, "avg")
    assert got.dtype == dtype
    assert (got.double() - expected).norm() <= (1e-2 if dtype == torch.bfloat16 else 1e-6) * expected.norm()


def test_filters_are_taken_as_they_are_when_the_block_is_made():
    x, filters, weight, bias = case(4, 2, 16, 24, 8, 8)
    block = ConvBlock(filters, weight, bias)
    expected = block(x)
    assert not expected.requires_grad
    filters.zero_()
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize("name", ["ConvNet", "ConvNetMP", "ConvNetNP", "ConvNetBN", "ConvNetASwish"])
def test_embedder_of_a_network_equals_embed(name):
    net = models.build(name, 3, 10, (16, 16), width=24, depth=2).double()
    x = torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = net.embed(x).detach()
    assert (net.embedder()(x) - expected).abs().max() <= 1e-12
    single = net.float().embedder()(x.float())
    assert (single.double() - expected).norm() <= 1e-5 * expected.norm()
    half = net.embedder(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.double() - expected).norm() <= 2e-2 * expected.norm()
    assert next(net.parameters()).dtype == torch.float32


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"\[O, I, 3, 3\], not \[4, 3, 5, 5\]"):
        ConvBlock(torch.zeros(4, 3, 5, 5), torch.ones(4), torch.zeros(4))
    with pytest.raises(RuntimeError, match="conv_block has no such kernel for cpu tensors"):
        ConvBlock(torch.zeros(4, 3, 3, 3), torch.ones(4), torch.zeros(4), backend="triton")
    block = ConvBlock(torch.zeros(4, 3, 3, 3), torch.ones(4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\], not \[1, 2, 4, 4\]"):
        block(torch.zeros(1, 2, 4, 4))
    with pytest.raises(TypeError, match=r"filters are torch\.float32"):
        block(torch.zeros(1, 3, 4, 4, dtype=torch.float64))
