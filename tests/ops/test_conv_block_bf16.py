"""ConvBlock of bfloat16 images on the CPU: products of bfloat16, all else in float32."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdd import models, ops
from fastdd.data import load
from fastdd.ops import ConvBlock
from fastdd.ops.conv_block import why_no_bf16_products

pytestmark = pytest.mark.skipif(bool(why_no_bf16_products()), reason=why_no_bf16_products() or "runs")
POOLS = ["avg", "max", "none"]


def plain(x, filters, weight, bias, padding, pool):
    z = F.conv2d(x, filters, padding=padding)
    y = F.relu(F.group_norm(z, len(filters), weight, bias))
    return {"avg": lambda: F.avg_pool2d(y, 2), "max": lambda: F.max_pool2d(y, 2), "none": lambda: y}[pool]()


def case(seed, n, inputs, outputs, height, width):
    """bfloat16 images, and float32 filters and norm."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, height, width, generator=generator).bfloat16()
    filters = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    return x, filters, torch.randn(outputs, generator=generator), torch.randn(outputs, generator=generator)


def block_of(*parts, **options):
    return ConvBlock(*parts, dtype=torch.bfloat16, **options)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "padding"),
    [
        *((3, 128, 32, 1), (1, 64, 28, 3), (64, 128, 16, 1), (128, 128, 8, 1), (16, 40, 7, 1), (33, 20, 6, 1)),
        # Parts of an image at a time: strips of 4, 4, 4 and 1 tile rows, of one row of 65 tiles.
        *((16, 40, 26, 1), (16, 8, 130, 1), (3, 70, 64, 1)),
    ],
)
def test_error_is_at_most_twice_plain_torchs(inputs, outputs, size, padding, pool):
    x, *rest = case(0, 2, inputs, outputs, size, size)
    got = block_of(*rest, padding=padding, pool=pool)(x)
    exact = plain(x.double(), *(t.double() for t in rest), padding, pool)
    torch_error = (plain(x, *(t.bfloat16() for t in rest), padding, pool).double() - exact).norm()
    assert got.dtype == torch.bfloat16
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
def test_whole_numbers_of_any_shape_are_rounded_once(seed, n, inputs, outputs, height, width, padding, pool):
    padding = 1 if inputs >= 16 else padding
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (n, inputs, height, width), generator=generator).bfloat16()
    filters = 4.0 * torch.randint(-2, 3, (outputs, inputs, 3, 3), generator=generator)  # their transform is whole too
    rest = filters, torch.rand(outputs, generator=generator) + 0.5, torch.randn(outputs, generator=generator)
    got = block_of(*rest, padding=padding, pool=pool)(x).double()
    exact = ConvBlock(*(t.double() for t in rest), padding=padding, pool=pool, backend="reference")(x.double())
    assert got.shape == exact.shape
    # Half a unit of bfloat16's last place, and float32's rounding of norm and pooling.
    assert n == 0 or (got - exact).sub_(exact.abs() / 2**8 + 1e-5).max() <= 0


def test_every_weight_of_the_products_is_where_it_belongs():
    """One tap of one channel at a time: the norm of what it picks."""
    for inputs in (3, 5, 16, 37):
        x, *_ = case(1, 1, inputs, 1, 6, 5)
        taps = torch.eye(9 * inputs).view(-1, inputs, 3, 3)[:: inputs // 3]
        rest = taps, torch.ones(len(taps)), torch.zeros(len(taps))
        got = block_of(*rest, pool="none")(x).double()
        exact = plain(x.double(), *(t.double() for t in rest), 1, "none")
        assert (got - exact).abs().max() <= 0.02 * exact.max()


@pytest.mark.parametrize("inputs", [3, 32])
def test_neither_threads_nor_other_images_change_a_bit(inputs):
    x, *rest = case(1, 13, inputs, 48, 12, 12)
    block, before, results = block_of(*rest), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(block(x))
    finally:
        torch.set_num_threads(before)
    results.append(torch.cat([block(one[None]) for one in x]))
    results.append(block(torch.stack([x, x], -1)[..., 0]))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("inputs", [3, 16])
@pytest.mark.parametrize("pool", ["avg", "none"])
def test_nan_of_an_image_stays_in_it(inputs, pool):
    x, *rest = case(2, 3, inputs, 20, 8, 8)
    clean = block_of(*rest, pool=pool)(x)
    x[1, 0, 3, 3] = float("nan")
    got = block_of(*rest, pool=pool)(x)
    assert got[1].isnan().all()
    assert torch.equal(got[::2], clean[::2])


def test_packed_filters_keep_what_smooth_images_see_of_them():
    """The sum of a filter (3 channels); 16 bits of the frequency with the mean of a patch (16 channels)."""
    _, filters, *_ = case(4, 1, 3, 32, 4, 4)
    taps = torch.ops.fastdd.pack_filters_bf16(filters).double().view(3, 5, 32, 2)
    assert ((taps.sum((0, 1, 3)) - filters.double().sum((1, 2, 3))).abs() <= filters.abs().amax((1, 2, 3)) / 2**8).all()
    _, filters, *_ = case(4, 1, 16, 32, 4, 4)
    parts = torch.ops.fastdd.pack_filters_bf16(filters).double().view(17, 8, 32, 2)
    exact = filters.double().sum((2, 3)) / 4
    got = (parts[5] + parts[6]).permute(1, 0, 2).flatten(1)
    assert ((got - exact).abs() <= exact.abs() / 2**16 + 1e-7).all()


def test_filters_are_taken_as_they_are_when_the_block_is_made():
    x, filters, weight, bias = case(4, 2, 16, 24, 8, 8)
    block = block_of(filters, weight, bias)
    expected = block(x)
    assert not expected.requires_grad
    filters.zero_()
    assert torch.equal(block(x), expected)


def test_what_the_kernels_do_not_take_are_the_layers_one_after_the_other():
    x, *rest = case(5, 2, 16, 24, 8, 8)
    wide = block_of(*rest, padding=2)(x)
    assert torch.equal(wide, ops.norm_act_pool(F.conv2d(x, rest[0].bfloat16(), padding=2), *rest[1:]))
    with pytest.raises(TypeError, match=r"x is torch\.float32 and the filters are torch\.bfloat16"):
        block_of(*rest)(x.float())
    packed = torch.ops.fastdd.pack_filters_bf16(rest[0])
    with pytest.raises(RuntimeError, match="padding must be 1 from 16 channels on"):
        torch.ops.fastdd.conv_block_bf16(x.permute(0, 2, 3, 1), rest[0], packed, *rest[1:], 2, 1e-5, "avg")


def test_network_prepares_float32_filters_for_bfloat16_images():
    net = models.build("ConvNet", 3, 10, (16, 16), width=24, depth=2)
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    blocks = [
        block_of(net.features[first].weight, net.features[first + 1].weight, net.features[first + 1].bias)
        for first in (0, 4)
    ]
    assert torch.equal(net.embedder(torch.bfloat16)(x), blocks[1](blocks[0](x)).flatten(1))


@pytest.mark.realdata
def test_mean_embedding_of_real_images_is_as_exact_as_the_layers_in_bfloat16(data_root, monkeypatch):
    images = torch.as_tensor(load("mnist", data_root).train.images[:64]).float().view(64, 1, 28, 28) / 255
    x = ((images - images.mean()) / images.std()).bfloat16()
    net = models.build("ConvNet", 1, 10, (28, 28), width=64).requires_grad_(False)
    means = {"kernels": net.embedder(torch.bfloat16)(x).double().mean(0)}
    monkeypatch.setenv("FASTDD_BACKEND", "reference")
    means["layers"] = net.embedder(torch.bfloat16)(x).double().mean(0)
    exact = net.double().embedder()(x.double()).mean(0)
    errors = {name: ((mean - exact).norm() / exact.norm()).item() for name, mean in means.items()}
    assert errors["kernels"] <= 1.1 * errors["layers"] <= 4e-3, errors
