"""Statistics over distillations against hand values and a simulation."""

import pytest
import torch

from fastdd.evaluation.repeats import paired, repeats


def test_parts_of_the_variance_by_hand():
    # Networks 1, 3 and 5, 7 and 3, 5: means 2, 6, 4; deviations 1; sample variance of a set 2, of the means 4.
    found = repeats([2.0, 6.0, 4.0], [1.0, 1.0, 1.0], 2)
    assert found.mean == 4
    assert found.within == pytest.approx(2**0.5)
    assert found.between == pytest.approx((4 - 2 / 2) ** 0.5)
    assert found.interval == pytest.approx(4.302653 * 2 / 3**0.5)  # t(0.975, 2)
    values = torch.tensor([1.0, 3.0, 5.0, 7.0, 3.0, 5.0])
    assert found.std == pytest.approx(values.std(correction=0).item())


def test_what_cannot_be_known_is_none():
    assert repeats([2.0, 6.0], [0.0, 0.0], 1).between is None
    assert repeats([2.0, 6.0], [0.0, 0.0], 1).within is None
    one = repeats([2.0], [1.0], 2)
    assert (one.interval, one.between) == (None, None)
    assert repeats([4.0, 4.0], [3.0, 3.0], 2).between == 0  # the estimate is negative
    assert paired([3.0], [1.0]) == (2, None)
    with pytest.raises(ValueError, match="2 and 1 figures are no pairs"):
        paired([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="0 means"):
        repeats([], [], 1)


def test_paired_differences_leave_out_what_a_seed_does_to_both():
    assert paired([11.0, 21.0, 31.0], [10.0, 20.0, 30.0]) == (1, 0)


def test_estimates_are_those_of_a_simulated_random_effect():
    sets, nets = 4000, 5
    generator = torch.Generator().manual_seed(0)
    effect = 2 * torch.randn(sets, 1, dtype=torch.float64, generator=generator)
    values = effect + 3 * torch.randn(sets, nets, dtype=torch.float64, generator=generator)
    found = repeats(values.mean(1).tolist(), values.std(1, correction=0).tolist(), nets)
    assert found.within == pytest.approx(3, rel=0.02)
    assert found.between == pytest.approx(2, rel=0.05)
