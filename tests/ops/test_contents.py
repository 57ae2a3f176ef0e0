"""What ops index with is refused, or told as NaN, wherever it is wrong: nothing is read or written out of bounds."""

import pytest
import torch

import fastdd.reference.augment as augment_reference
import fastdd.reference.formation as formation_reference
import fastdd.reference.segment_mean as segment_reference
from fastdd import ops

OFFSETS = [[0, 20, 10**7, 50], [0, 20, 10, 50], [1, 20, 30, 50], [0, 20, 30, 49], [0, -5, 30, 50]]
CLASSES = [[0, 5, 1], [0, -3, 1]]


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, backend="aot_eager")


@pytest.mark.parametrize("ends", OFFSETS)
def test_wrong_offsets_are_nan_where_they_are_not_read(ends):
    mean = compiled(lambda x, o: ops.segment_mean(x, o, backend="reference"))
    assert mean(torch.rand(50, 4), torch.tensor(ends)).isnan().all()
    spread = compiled(lambda g, o: ops.segment_spread(g, o, None, 50, backend="reference"))
    assert spread(torch.rand(3, 4), torch.tensor(ends)).isnan().all()


def test_right_offsets_are_exact_where_they_are_not_read():
    x, offsets, weights = torch.rand(50, 4), torch.tensor([0, 20, 20, 50]), torch.rand(50)
    mean = compiled(lambda x, o, w: ops.segment_mean(x, o, w, backend="reference"))
    assert torch.equal(mean(x, offsets, weights), segment_reference.segment_mean(x, offsets, weights))


@pytest.mark.parametrize("ends", OFFSETS)
def test_wrong_offsets_are_refused_without_a_wrapper(ends):
    x, offsets = torch.rand(50, 4), torch.tensor(ends)
    images, gradients = torch.rand(50, 1, 3, 3), torch.rand(50, 2, 1, 1)
    geometry = [3, 3], [1, 1], [0, 0], [1, 1], 1
    calls = [
        lambda: segment_reference.segment_mean(x, offsets),
        lambda: segment_reference.segment_spread(x[:3], offsets, None, 50),
        lambda: torch.ops.fastdd.segment_mean(torch.rand(50, 0).to_sparse(), offsets, None),
        lambda: torch.ops.fastdd.grouped_outer(x, x, None, offsets, 1),
        lambda: torch.ops.fastdd.grouped_matmul(x, torch.rand(3, 4, 2), None, offsets, 1),
        lambda: torch.ops.fastdd.grouped_conv_weight(images, gradients, offsets, *geometry),
        lambda: torch.ops.fastdd.kde(x.to_sparse(), None, None, offsets, 1.0, False, "fp32"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="offsets must rise from 0 to the number of rows, 50; got "):
            call()


@pytest.mark.parametrize("classes", CLASSES)
def test_wrong_classes(classes):
    real, synthetic, offsets = torch.rand(6, 3), torch.rand(4, 3), torch.tensor([0, 2, 4, 6])
    match = compiled(lambda r, s, o, c: ops.embedding_match(r, s, o, None, c, 2, backend="reference"))
    assert match(real, synthetic, offsets, torch.tensor(classes)).isnan().tolist() == [False, True, False]
    with pytest.raises(ValueError, match="classes must be from 0 to 1"):
        ops.embedding_match(real, synthetic, offsets, None, torch.tensor(classes), 2)


def test_wrong_classes_of_gradients():
    match = compiled(lambda a, b, c: ops.gradient_match([a], [b], c, backend="reference"))
    distances = match(torch.rand(3, 4, 3), torch.rand(2, 4, 3), torch.tensor([0, 5, 1]))
    assert distances.isnan().tolist() == [False, True, False]


def test_wrong_rows_and_parameters_of_images():
    x, params, rows = torch.rand(4, 3, 8, 8), ops.identity_params(3), torch.tensor([0, 7, -1, 2])
    params[2, ops.Param.A] = torch.nan
    for function, reference in (
        (ops.augment, augment_reference.augment),
        (ops.augment_adjoint, augment_reference.augment_adjoint),
    ):
        run = compiled(lambda x, p, r, function=function: function(x, p, r, backend="reference"))
        assert run(x, params, rows).isnan().flatten(1).all(1).tolist() == [False, True, True, True]
        with pytest.raises(ValueError, match="rows must be from 0 to 2; got -1"):
            reference(x, params, rows)


@pytest.mark.parametrize("wrong", [[2, 0], [-1, 0], [0, 4], [1, -1]])
def test_wrong_addresses_of_parts(wrong):
    stored, parts = torch.rand(2, 3, 6, 6), torch.tensor([[1, 3], wrong])
    decode = compiled(lambda x, p: ops.formation(x, 2, p, backend="reference"))
    assert decode(stored, parts).isnan().flatten(1).all(1).tolist() == [False, True]
    params, g = ops.identity_params(2), torch.rand(2, 3, 6, 6)
    calls = [
        lambda: ops.formation(stored, 2, parts),
        lambda: ops.formation_adjoint(g, 2, (6, 6), 2, parts),
        lambda: ops.augment_stored(stored, params, factor=2, parts=parts),
        lambda: formation_reference.formation(stored, 2, parts),
        lambda: formation_reference.formation_adjoint(g, 2, 6, 6, 2, parts),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"parts.* must be from 0 to [13]; got"):
            call()
    for call in (
        lambda: torch.ops.fastdd.formation(stored, 2, parts, None, [6, 6]),
        lambda: torch.ops.fastdd.formation_adjoint(g, 2, 6, 6, 2, parts),
        lambda: torch.ops.fastdd.augment_stored(stored, params, None, False, 2, parts, None),
        lambda: torch.ops.fastdd.augment_stored_adjoint(g, params, None, 2, 2, parts),
    ):
        with pytest.raises((RuntimeError, ValueError), match=r"is no part of 2 images|must be from 0"):
            call()
