"""Segments: sorted, normalised, complete, for every debias mode."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastdd import debias


def batch(classes, groups, num_classes, num_groups):
    classes, groups = torch.tensor(classes), torch.tensor(groups)
    counts = torch.bincount(classes * num_groups + groups, minlength=num_classes * num_groups)
    rows = torch.arange(100, 100 + len(classes))
    return debias.Batch(rows, classes, groups, num_classes, num_groups, counts.view(num_classes, num_groups))


def test_worked_example():
    made = batch([0, 0, 0, 1, 1], [0, 1, 0, 0, 0], 2, 2)
    fair = debias.mode("fairdd").segments(made)
    assert fair.rows.tolist() == [100, 102, 101, 103, 104]
    assert fair.offsets.tolist() == [0, 2, 3, 5, 5]
    assert fair.weights.tolist() == [0.5, 0.5, 1.0, 0.5, 0.5]
    assert fair.classes.tolist() == [0, 0, 1, 1]
    assert fair.present.tolist() == [True, True, True, False]
    assert fair.sample_classes.tolist() == [0, 0, 0, 1, 1]
    plain = debias.mode("none").segments(made)
    assert plain.rows.tolist() == [100, 101, 102, 103, 104]
    assert plain.offsets.tolist() == [0, 3, 5]
    torch.testing.assert_close(plain.weights, torch.tensor([1 / 3] * 3 + [1 / 2] * 2))


# Without one that has images twice, and one whose groups are found: both are in tests of their own.
PARTITIONS = sorted(debias.MODES.keys() - {"biased-dd", "fairdd-batch"})


@given(st.data(), st.integers(1, 4), st.integers(1, 4), st.sampled_from(PARTITIONS))
def test_invariants(data, num_classes, num_groups, mode):
    counts = data.draw(st.lists(st.integers(1, 6), min_size=num_classes, max_size=num_classes))
    classes = [c for c, n in enumerate(counts) for _ in range(n)]
    groups = data.draw(st.lists(st.integers(0, num_groups - 1), min_size=len(classes), max_size=len(classes)))
    made = batch(classes, groups, num_classes, num_groups)
    segments = debias.mode(mode).segments(made)
    assert sorted(segments.rows.tolist()) == made.rows.tolist()
    assert segments.sample_classes.tolist() == classes
    fair = mode.startswith("fairdd")
    assert len(segments.classes) == (num_classes * num_groups if fair else num_classes)
    for s, (start, end) in enumerate(zip(segments.offsets[:-1], segments.offsets[1:], strict=True)):
        members = segments.rows[start:end] - 100
        assert all(classes[i] == segments.classes[s] for i in members)
        if fair:
            assert all(groups[i] == s % num_groups for i in members)
        if end > start:
            assert segments.weights[start:end].sum().item() == pytest.approx(1, abs=1e-6)


def test_weights_of_samples():
    """They are normalised over the segment, so only their ratios within it matter."""
    made = replace(batch([0, 0, 0, 1, 1], [0, 1, 0, 0, 0], 2, 2), weights=torch.tensor([1.0, 5.0, 3.0, 4.0, 4.0]))
    by_class = debias.mode("kde").segments(made)
    torch.testing.assert_close(by_class.weights, torch.tensor([1 / 9, 5 / 9, 3 / 9, 1 / 2, 1 / 2]))
    fair = debias.mode("fairdd").segments(made)
    torch.testing.assert_close(fair.weights, torch.tensor([1 / 4, 3 / 4, 1.0, 1 / 2, 1 / 2]))


def test_weightings_of_groups():
    """Class 0 has groups of 1 and 16, class 1 only one group; factors have mean 1 over the groups that are there."""
    made = batch([0] * 17 + [1] * 2, [0] + [1] * 16 + [1] * 2, 2, 2)
    distances = torch.tensor([3.0, 5.0, 0.0, 7.0])
    expected = {
        "fairdd": [1, 1, 1, 1],
        "fairdd-iw": [32 / 17, 2 / 17, 0, 1],
        "fairdd-ldam": [4 / 3, 2 / 3, 0, 1],
        "fairdd-groupdro": [0, 1, 0, 1],
    }
    for mode, factors in expected.items():
        total = debias.mode(mode).segments(made).total(distances)
        torch.testing.assert_close(total, (torch.tensor(factors) * distances).sum())
    with pytest.raises(ValueError, match="needs the data set's counts"):
        debias.mode("fairdd-iw").segments(replace(made, counts=None))


def test_the_worst_group_alone_pulls():
    made = batch([0, 0, 1, 1], [0, 1, 0, 1], 2, 2)
    distances = torch.tensor([1.0, 2.0, 4.0, 3.0], dtype=torch.float64, requires_grad=True)
    debias.mode("fairdd-groupdro").segments(made).total(distances).backward()
    assert distances.grad.tolist() == [0, 1, 1, 0]


def test_unknown_mode():
    with pytest.raises(ValueError, match="unknown debias mode 'fair'; one of: none, fairdd"):
        debias.mode("fair")
