"""Arguments of ops: of another kind they get one line; autocast, layouts and devices change no result in silence."""

import pytest
import torch

from fastdd import models, ops
from fastdd.ops import _dispatch
from fastdd.reference import segment_mean as segment_reference

X, OFFSETS = torch.rand(4, 3), torch.tensor([0, 2, 4])
IMAGES, FILTERS = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3)
NORM = torch.ones(4), torch.zeros(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.segment_mean([1.0], OFFSETS), "x must be a tensor, not list"),
        (lambda: ops.segment_mean(X, OFFSETS, 2.0), "weights must be a tensor or None, not float"),
        (lambda: ops.segment_mean(X.to_sparse(), OFFSETS), "x must be a dense tensor, not a sparse_coo one"),
        (lambda: ops.segment_mean(X, OFFSETS, backend=None), "backend must be a string, not NoneType"),
        (lambda: ops.segment_spread(X[:2], OFFSETS, None, 4.0), "n must be an integer, not float"),
        (lambda: ops.norm_act_pool(IMAGES, *NORM, eps="x"), "eps must be a number, not str"),
        (lambda: ops.kde(X, bandwidth=1.0, leave_one_out={}), "leave_one_out must be a bool, not dict"),
        (lambda: ops.gradient_match([[1.0]], [X], OFFSETS), r"real\[0\] must be a tensor, not list"),
        (lambda: ops.group_grad(torch.nn.Linear(3, 2), X.numpy(), OFFSETS, OFFSETS), "images must be a tensor, not nd"),
        (lambda: ops.ConvBlock(FILTERS, None, None), "weight must be a tensor, not NoneType"),
        (lambda: ops.augment(torch.nested.nested_tensor([X]), OFFSETS), "x must be a dense tensor, not a nested one"),
    ],
)
def test_another_kind_is_one_line(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_values_that_fit_nothing_are_told():
    with pytest.raises(ValueError, match="padding must be one or two integers, at least 0, not -1"):
        ops.grouped_conv_weight(IMAGES, IMAGES, torch.tensor([0, 2]), 3, padding=-1)
    with pytest.raises(ValueError, match="labels must be from 0 to 1; got 5"):
        ops.group_grad(torch.nn.Linear(3, 2), X, torch.tensor([0, 5, 1, 1]), OFFSETS)
    with pytest.raises(ValueError, match=r"theta must be floating point \[\*, 2, 3\], not torch.float32 \[4, 3\]"):
        ops.pixel_matrix(X, (8, 8))


@pytest.mark.parametrize(
    "call",
    [
        lambda **o: ops.conv3x3(IMAGES, FILTERS, **o),
        lambda **o: ops.conv_norm_act_pool(IMAGES, FILTERS, *NORM, **o),
        lambda **o: ops.norm_act_pool(IMAGES.bfloat16(), *(t[:3] for t in NORM), **o),
        lambda **o: ops.ConvBlock(FILTERS, *NORM, **o)(IMAGES),
        lambda **o: ops.kde(X, bandwidth=0.3, **o),
        lambda **o: ops.grouped_outer(X, X, None, OFFSETS, **o),
        lambda **o: ops.embedding_match(X, X, OFFSETS, None, torch.tensor([0, 1]), 2, **o),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_autocast_changes_nothing(call, backend):
    expected = call(backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        result = call(backend=backend)
    assert result.dtype == expected.dtype
    assert torch.equal(result, expected)


_MEANS = X, torch.rand(1, 5, 3), OFFSETS, torch.rand(4), torch.tensor([0, 1])
_STORED = IMAGES, ops.identity_params(1), None, False, 3, None, torch.rand(3)


@pytest.mark.parametrize(
    ("op", "argument", "place", "arguments"),
    [
        ("segment_mean", "weights", 2, (X, OFFSETS, torch.rand(4))),
        ("augment", "params", 1, (IMAGES, ops.identity_params(2), None, False)),
        ("cf_means", "t", 1, _MEANS),
        ("cf_means", "weights", 3, _MEANS),
        ("augment_stored", "params", 1, _STORED),
        ("augment_stored", "fill", 6, _STORED),
        ("augment_stored_adjoint", "params", 1, (IMAGES, ops.identity_params(1), None, 2, 1, None)),
        ("formation", "fill", 3, (IMAGES, 3, None, torch.rand(3), [8, 8])),
    ],
)
def test_a_derivative_that_is_not_there_is_told(op, argument, place, arguments):
    asked = [t.clone().requires_grad_() if i == place else t for i, t in enumerate(arguments)]
    with pytest.raises(RuntimeError, match=f"{op} has no derivative in {argument}: detach it"):
        getattr(torch.ops.fastdd, op)(*asked).sum().backward()


def test_tensors_of_two_devices_are_refused_past_the_wrapper():
    with pytest.raises(RuntimeError, match="segment_mean has arguments on cpu and meta: move them to one device"):
        torch.ops.fastdd.segment_mean(X, OFFSETS, torch.rand(4, device="meta"))
    assert ops.grouped_outer(*(t.to("meta") for t in (X, X)), None, OFFSETS.to("meta")).shape == (2, 3, 3)


def test_a_row_of_no_weight_is_not_there_even_if_it_is_nan():
    x, weights = X.clone(), torch.tensor([0.0, 0.0, 1.0, 1.0])
    x[0] = torch.nan
    for backend in ("auto", "reference"):
        means = ops.segment_mean(x, OFFSETS, weights, backend=backend)
        assert means[0].tolist() == [0, 0, 0]
        assert torch.equal(means[1], X[2:].mean(0))
    assert segment_reference.segment_spread(x[:2], OFFSETS, weights, 4)[:2].tolist() == [[0, 0, 0]] * 2


def test_a_pixel_beside_the_image_is_not_there_even_if_the_image_is_nan():
    x, shift = IMAGES.clone(), ops.identity_params(1)
    x[:, :, :, 0] = torch.nan
    shift[0, ops.Param.C] = 3  # result pixel x samples the source at x + 3
    shifted = [ops.augment(x, shift, backend=backend) for backend in ("auto", "reference")]
    assert torch.equal(*shifted)
    assert torch.equal(shifted[0][..., :5], x[..., 3:])
    assert not shifted[0].any(3).isnan().any()
    assert (shifted[0][..., 5:] == 0).all()


def test_views_with_the_negative_bit_are_read():
    params = ops.identity_params(2)
    for backend in ("auto", "reference"):
        assert torch.equal(ops.augment(IMAGES, torch._neg_view(-params), backend=backend), IMAGES)


def test_packed_filters_have_their_size_where_they_have_no_contents():
    for channels in (3, 16):
        filters = torch.rand(8, channels, 3, 3)
        for columns in (0, 2, 4):
            packed = torch.ops.fastdd.pack_filters(filters, columns)
            assert torch.ops.fastdd.pack_filters(filters.to("meta"), columns).shape == packed.shape


def test_what_would_be_written_beyond_is_refused_past_the_wrappers():
    raw, params = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ops.identity_params(2)
    with pytest.raises(RuntimeError, match="the result must be float32, float64 or bfloat16"):
        torch.ops.fastdd.augment_uint8(raw, params, None, torch.rand(3), torch.rand(3), torch.uint8)
    with pytest.raises(ValueError, match="x and b must be of the same images, not 2 and 0"):
        torch.ops.fastdd.grouped_conv_weight(
            IMAGES, IMAGES[:0], torch.tensor([0, 2]), [1, 1], [1, 1], [0, 0], [1, 1], 1
        )


def test_a_shift_that_does_not_fit_is_refused_though_it_changes_nothing():
    for shift, error in ((torch.zeros(1), ValueError), (torch.zeros(4, dtype=torch.float64), TypeError)):
        with pytest.raises(error, match=r"bias (must be \[4\], not \[1\]|are torch.float64 and x is torch.float32)"):
            ops.conv_norm_act_pool(IMAGES, FILTERS, *NORM, shift=shift)


def test_memory_that_ends_in_a_kernel_is_told():
    with pytest.raises(MemoryError, match="segment_spread: the memory is not enough for its result"):
        ops.segment_spread(torch.rand(1, 2**20), torch.tensor([0, 2**32]), None, 2**32)


def test_counts_and_sizes_that_nothing_can_have_are_one_line():
    with pytest.raises(ValueError, match="n must be a number of rows, from 0 to below 2147483648"):
        ops.identity_params(2**80)
    with pytest.raises(ValueError, match=r"offsets must be int64 \[S\+1\], not torch.int64 \[\]"):
        ops.segment_spread(torch.rand(3, 2), torch.tensor(3), None, 4)
    net = models.build("ConvNetD1", 3, 4, (8, 8), width=4)
    for size in ((6, 3, 0, 8), (6, 0, 8, 8)):
        with pytest.raises(ValueError, match="images of no pixels"):
            ops.group_grad(net, torch.rand(size), torch.zeros(6, dtype=torch.int64), torch.tensor([0, 6]))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_what_is_refused_does_not_depend_on_the_backend(backend):
    with pytest.raises(ValueError, match="images of no pixels"):
        ops.conv3x3(torch.rand(2, 3, 0, 4), torch.rand(5, 3, 3, 3), backend=backend)
    filters, affine = torch.rand(5, 3, 3, 3), torch.ones(5)
    for weight, bias in ((affine.int(), affine), (affine, affine.to(torch.int8)), (affine[:4], affine)):
        with pytest.raises(ValueError, match=r"must be floating point \[5\]"):
            ops.ConvBlock(filters, weight, bias, backend=backend)


@pytest.mark.skipif(not _dispatch.has_kernel("augment_uint8", torch.device("cpu")), reason="there is no extension")
def test_normalisation_past_the_wrapper_is_one_value_a_channel():
    x, params = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ops.identity_params(1)
    with pytest.raises(RuntimeError, match=r"mean and std must be \[C\]"):
        torch.ops.fastdd.augment_uint8(x, params, None, torch.rand(3, 1), torch.rand(3), torch.float32)
