"""Samples in the order of their segments, against counts by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastdd.ops import segment_order


@given(st.integers(1, 6).flatmap(lambda s: st.tuples(st.just(s), st.lists(st.integers(0, s - 1), max_size=30))))
def test_samples_are_sorted_stably_with_their_shares(case):
    segments, listed = case
    segment = torch.tensor(listed, dtype=torch.int64)
    order, offsets, shares = segment_order(segment, segments)
    assert order.tolist() == sorted(range(len(listed)), key=lambda i: (listed[i], i))
    assert offsets.diff().tolist() == [listed.count(s) for s in range(segments)]
    assert shares.tolist() == [torch.tensor(1.0 / listed.count(listed[i])).item() for i in order.tolist()]


def test_opcheck():
    torch.library.opcheck(torch.ops.fastdd.segment_order.default, (torch.tensor([1, 0, 1]), 3))


@pytest.mark.parametrize(
    ("segment", "segments", "error"),
    [
        (torch.zeros(2), 1, "segment must be int64"),
        (torch.zeros(2, 1, dtype=torch.int64), 1, "segment must be int64"),
        (torch.tensor([0, 3]), 3, "segment must"),
        (torch.tensor([0]), -1, "segments must"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(segment, segments, error):
    with pytest.raises(ValueError, match=error) as refused:
        segment_order(segment, segments)
    assert "\n" not in str(refused.value)


@pytest.mark.gpu
def test_the_kernel_agrees_with_a_sort():
    segment = torch.randint(0, 40, (3000,))
    for got, exact in zip(segment_order(segment.cuda(), 41), segment_order(segment, 41), strict=True):
        assert torch.equal(got.cpu(), exact)
