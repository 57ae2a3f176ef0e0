"""The sampler: right rows, no duplicates, uniform, the same for a key whatever else happens."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from fastdd.core import rng
from fastdd.data import Sampler

CELLS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=60)


def sampler_of(cells, batch, mode):
    """A sampler over the cells' classes, renumbered so that none is empty."""
    labels = torch.unique(torch.tensor([c for c, _ in cells]), return_inverse=True)[1]
    groups = torch.tensor([g for _, g in cells])
    return Sampler(labels, groups, int(labels.max()) + 1, 3, batch, mode=mode), labels, groups


@given(CELLS, st.integers(1, 20), st.sampled_from(["random", "stratified"]), st.integers(-(2**63), 2**63 - 1))
def test_a_draw_has_the_promised_rows(cells, batch, mode, key):
    sampler, labels, _ = sampler_of(cells, batch, mode)
    rows = sampler.draw(key)
    sizes = torch.bincount(labels)
    assert rows.dtype == torch.int64
    assert len(set(rows.tolist())) == len(rows)
    assert torch.equal(labels[rows], sampler.classes)
    assert torch.equal(sampler.counts, sizes.clamp(max=batch))
    assert torch.equal(torch.bincount(sampler.classes), sampler.counts)
    assert torch.equal(sampler.classes, sampler.classes.sort().values)


@given(CELLS, st.integers(1, 20), st.integers(0, 1000))
def test_a_stratified_draw_is_as_even_as_can_be(cells, batch, key):
    sampler, labels, groups = sampler_of(cells, batch, "stratified")
    rows = sampler.draw(key)
    for c in labels.unique():
        sizes = torch.bincount(groups[labels == c], minlength=3)
        takes = torch.bincount(groups[rows[sampler.classes == c]], minlength=3)
        assert (takes <= sizes).all()
        # A group that could still give has at most one row fewer than any other.
        unfilled = takes[takes < sizes]
        assert len(unfilled) == 0 or takes.max() - unfilled.min() <= 1


def test_stratified_shares_by_hand():
    groups = torch.tensor([0] * 50 + [1] * 2 + [3] * 50)
    sampler = Sampler(torch.zeros(102, dtype=torch.int64), groups, 1, 4, 9, mode="stratified")
    assert torch.bincount(groups[sampler.draw(0)], minlength=4).tolist() == [4, 2, 0, 3]


@pytest.mark.parametrize("mode", ["random", "stratified"])
def test_every_row_of_a_class_is_as_likely(mode):
    labels = torch.tensor([0, 1] * 30)
    groups = torch.tensor([0, 0, 1] * 20)
    sampler = Sampler(labels, groups, 2, 2, 7, mode=mode)
    draws = 4000
    seen = torch.zeros(60)
    for step in range(draws):
        seen[sampler.draw(rng.key(1, "real", step))] += 1
    # Without stratification a class is one lane; with it, a class's group: 20 and 10 rows giving 4 and 3.
    lanes = labels * 2 + groups if mode == "stratified" else labels
    for lane in lanes.unique():
        counts = seen[lanes == lane].double()
        n, take = len(counts), float(counts.sum()) / draws
        # Draws without replacement: count variance is draws * p * (1 - p), with n - 1 degrees of freedom over n rows.
        p = take / n
        statistic = float(((counts - draws * p) ** 2).sum() / (draws * p * (1 - p))) * (n - 1) / n
        assert chi2.ppf(0.0005, n - 1) < statistic < chi2.ppf(0.9995, n - 1)


def test_pairs_are_as_likely_as_they_should_be():
    # Four rows, two drawn: each of the six pairs a sixth of the time.
    sampler = Sampler(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), 1, 1, 2)
    pairs = {}
    for step in range(3000):
        pair = tuple(sorted(sampler.draw(rng.key(2, "real", step)).tolist()))
        pairs[pair] = pairs.get(pair, 0) + 1
    assert len(pairs) == 6
    statistic = sum((count - 500) ** 2 / 500 for count in pairs.values())
    assert statistic < chi2.ppf(0.999, 5)


def test_classes_draw_independently():
    labels = torch.arange(2).repeat_interleave(10)
    sampler = Sampler(labels, torch.zeros(20, dtype=torch.int64), 2, 1, 1)
    table = np.zeros((10, 10))
    for step in range(5000):
        first, second = sampler.draw(rng.key(3, "real", step)).tolist()
        table[first, second - 10] += 1
    assert ((table - 50) ** 2 / 50).sum() < chi2.ppf(0.999, 99)


def test_a_draw_depends_on_its_key_alone():
    labels = torch.arange(3).repeat_interleave(50)
    sampler = Sampler(labels, torch.zeros(150, dtype=torch.int64), 3, 1, 10)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = sampler.draw(5)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(1)
    sampler.draw(6)
    assert torch.equal(sampler.draw(5), first)
    assert not torch.equal(sampler.draw(6), first)


def test_a_class_draws_the_same_rows_whatever_the_batch():
    # The smaller batch is the start of the larger: ranks do not depend on how many are taken.
    labels = torch.zeros(50, dtype=torch.int64)
    small, large = (Sampler(labels, labels, 1, 1, batch) for batch in (5, 20))
    assert torch.equal(small.draw(9), large.draw(9)[:5])


@pytest.mark.gpu
def test_the_gpu_draws_the_same_rows():
    labels = torch.arange(10).repeat(600)
    groups = torch.arange(6000) % 7
    for mode in ("random", "stratified"):
        host = Sampler(labels, groups, 10, 7, 256, mode=mode)
        device = Sampler(labels, groups, 10, 7, 256, mode=mode, device="cuda")
        assert device.classes.is_cuda
        for step in range(5):
            assert torch.equal(device.draw(step).cpu(), host.draw(step))


ROWS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ROWS, ROWS, 1, 1, 0), ValueError, "batch must be at least 1 row a class, not 0"),
        ((ROWS.float(), ROWS, 1, 1, 2), TypeError, "labels must be int64, not torch.float32"),
        ((ROWS, ROWS[:3], 1, 1, 2), ValueError, r"groups must be one value a row, \[4\], not \[3\]"),
        ((ROWS + 5, ROWS, 3, 1, 2), ValueError, r"labels must lie in 0\.\.2, found 5\.\.5"),
        ((ROWS, ROWS - 1, 1, 2, 2), ValueError, r"groups must lie in 0\.\.1, found -1\.\.-1"),
        ((ROWS, ROWS, 3, 1, 2), ValueError, "class 1 has no rows to draw from"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Sampler(*arguments)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be random, stratified or weighted, not 'balanced'"):
        Sampler(ROWS, ROWS, 1, 1, 2, mode="balanced")


def test_weighted_draws_are_in_proportion_to_weights():
    """With replacement: 20,000 draws of a class of three rows, against their shares; weight 0 is never drawn."""
    labels, weights = torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([1.0, 5, 3, 0, 6, 5])
    sampler = Sampler(labels, torch.zeros_like(labels), 2, 1, 20_000, mode="weighted", weights=weights)
    rows = sampler.draw(rng.key(0, "test"))
    assert sampler.counts.tolist() == [20_000, 20_000]
    assert torch.equal(labels[rows], sampler.classes)
    shares = torch.bincount(rows, minlength=6) / 20_000
    # Four standard deviations of the least certain share.
    assert (shares - torch.tensor([0.1, 0.5, 0.3, 0, 0.6, 0.5])).abs().max() <= 4 * (0.25 / 20_000) ** 0.5
    assert shares[3] == 0


@pytest.mark.parametrize("mode", ["random", "stratified"])
def test_a_row_of_weight_zero_is_never_drawn(mode):
    labels = torch.arange(12) % 2
    weights = (torch.arange(12) % 3).float()
    sampler = Sampler(labels, labels * 0, 2, 1, 12, mode=mode, weights=weights)
    assert sorted(sampler.draw(rng.key(0, "test")).tolist()) == [1, 2, 4, 5, 7, 8, 10, 11]


def test_bad_weights():
    labels = torch.tensor([0, 0, 1])
    for weights in ([1.0, 1.0], [1.0, -1.0, 1.0], [1.0, float("nan"), 1.0]):
        with pytest.raises(ValueError, match="weights must be"):
            Sampler(labels, labels, 2, 2, 1, weights=torch.tensor(weights))
    with pytest.raises(ValueError, match="class 1 has no rows"):
        Sampler(labels, labels, 2, 2, 1, weights=torch.tensor([1.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="needs weights"):
        Sampler(labels, labels, 2, 2, 1, mode="weighted")


@given(CELLS, st.integers(1, 20), st.sampled_from(["random", "stratified", "weighted"]), st.data())
def test_a_part_draws_of_its_classes_what_the_whole_draws(cells, batch, mode, data):
    labels = torch.unique(torch.tensor([c for c, _ in cells]), return_inverse=True)[1]
    groups, classes = torch.tensor([g for _, g in cells]), int(labels.max()) + 1
    weights = rng.uniform(2, len(labels)) + 0.1
    whole = Sampler(labels, groups, classes, 3, batch, mode=mode, weights=weights)
    first = data.draw(st.integers(0, classes - 1))
    last = data.draw(st.integers(first + 1, classes))
    part = whole.part(first, last)
    own = (whole.classes >= first) & (whole.classes < last)
    assert torch.equal(part.draw(7), whole.draw(7)[own])
    assert torch.equal(part.classes, whole.classes[own])
    assert torch.equal(part.counts, whole.counts[first:last])
    again = part.part(first, first + 1)
    assert torch.equal(again.draw(7), whole.draw(7)[whole.classes == first])


def test_a_part_of_classes_that_are_not_there():
    sampler = Sampler(torch.arange(6), torch.zeros(6, dtype=torch.int64), 6, 1, 1).part(2, 5)
    for first, last in ((1, 4), (2, 6), (3, 3)):
        with pytest.raises(ValueError, match="are not some of 2 to 4"):
            sampler.part(first, last)
