"""CutMix: its draws, against the published formulas, and how a batch is mixed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastdd.core import rng
from fastdd.ops import CutMix, cutmix, cutmix_rectangle

SIZE = (12, 20)


def published(size, lam, row, column):
    """IDC's ``rand_bbox``."""
    ends = []
    for side, centre in zip(size, (row, column), strict=True):
        cut = int(side * np.sqrt(1.0 - lam))
        ends.append((np.clip(centre - cut // 2, 0, side), np.clip(centre + cut // 2, 0, side)))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


@given(
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    lam=st.floats(0, 1),
    row=st.integers(0, 63),
    column=st.integers(0, 63),
)
def test_the_rectangle_is_the_published_one(size, lam, row, column):
    row, column = row % size[0], column % size[1]
    assert cutmix_rectangle(size, 1 - lam, row, column) == published(size, lam, row, column)


def test_a_part_of_the_batches_is_mixed_in_any_order_and_anywhere():
    drawn = [cutmix(rng.key(0, "test", number), 5, SIZE, 0.3) for number in range(2000)]
    mixed = [one for one in drawn if one is not None]
    assert stats.binomtest(len(mixed), len(drawn), 0.3).pvalue > 1e-3
    assert all(sorted(one.order.tolist()) == list(range(5)) for one in mixed)
    firsts = np.bincount([int(one.order[0]) for one in mixed], minlength=5)
    assert stats.chisquare(firsts).pvalue > 1e-3
    for one in mixed:
        top, left, bottom, right = one.rectangle
        assert 0 <= top <= bottom <= SIZE[0]
        assert 0 <= left <= right <= SIZE[1]
        assert one.kept == 1 - (bottom - top) * (right - left) / (SIZE[0] * SIZE[1])


def test_the_areas_are_those_of_a_uniform_lambda():
    generator, size = np.random.default_rng(0), (32, 32)
    expected = []
    for _ in range(4000):
        ends = published(size, generator.beta(1, 1), generator.integers(32), generator.integers(32))
        expected.append(1 - (ends[2] - ends[0]) * (ends[3] - ends[1]) / 32**2)
    got = [cutmix(rng.key(1, "test", number), 1, size, 1.0).kept for number in range(4000)]
    assert stats.ks_2samp(got, expected).pvalue > 1e-3


def test_draws_are_functions_of_the_key():
    one, again, other = (cutmix(key, 50, SIZE, 1.0) for key in (7, 7, 8))
    assert torch.equal(one.order, again.order)
    assert (one.rectangle, one.kept) == (again.rectangle, again.kept)
    assert not torch.equal(one.order, other.order)
    assert cutmix(7, 50, SIZE, 0.0) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rectangle_of_every_image_is_the_others(dtype):
    images = torch.randn(4, 3, 6, 7, dtype=dtype)
    order = torch.tensor([2, 1, 3, 0])
    expected = images.clone()
    for i, other in enumerate(order.tolist()):
        for y in range(1, 4):
            for x in range(2, 7):
                expected[i, :, y, x] = images[other, :, y, x]
    mixed = CutMix(order, (1, 2, 4, 7), 1 - 15 / 42).paste(images.clone())
    assert torch.equal(mixed, expected)
