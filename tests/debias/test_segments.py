"""Segments: sorted, normalised, complete, for every debias mode."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastdd import debias


def batch(classes, groups, num_classes, num_groups):
    return debias.Batch(
        torch.arange(100, 100 + len(classes)), torch.tensor(classes), torch.tensor(groups), num_classes, num_groups
    )


def test_worked_example():
    made = batch([0, 0, 0, 1, 1], [0, 1, 0, 0, 0], 2, 2)
    fair = debias.mode("fairdd")(made)
    assert fair.rows.tolist() == [100, 102, 101, 103, 104]
    assert fair.offsets.tolist() == [0, 2, 3, 5, 5]
    assert fair.weights.tolist() == [0.5, 0.5, 1.0, 0.5, 0.5]
    assert fair.classes.tolist() == [0, 0, 1, 1]
    assert fair.present.tolist() == [True, True, True, False]
    assert fair.sample_classes.tolist() == [0, 0, 0, 1, 1]
    plain = debias.mode("none")(made)
    assert plain.rows.tolist() == [100, 101, 102, 103, 104]
    assert plain.offsets.tolist() == [0, 3, 5]
    torch.testing.assert_close(plain.weights, torch.tensor([1 / 3] * 3 + [1 / 2] * 2))


@given(st.data(), st.integers(1, 4), st.integers(1, 4), st.sampled_from(sorted(debias.MODES)))
def test_invariants(data, num_classes, num_groups, mode):
    counts = data.draw(st.lists(st.integers(1, 6), min_size=num_classes, max_size=num_classes))
    classes = [c for c, n in enumerate(counts) for _ in range(n)]
    groups = data.draw(st.lists(st.integers(0, num_groups - 1), min_size=len(classes), max_size=len(classes)))
    made = batch(classes, groups, num_classes, num_groups)
    segments = debias.mode(mode)(made)
    assert sorted(segments.rows.tolist()) == made.rows.tolist()
    assert segments.sample_classes.tolist() == classes
    assert len(segments.classes) == (num_classes if mode == "none" else num_classes * num_groups)
    for s, (start, end) in enumerate(zip(segments.offsets[:-1], segments.offsets[1:], strict=True)):
        members = segments.rows[start:end] - 100
        assert all(classes[i] == segments.classes[s] for i in members)
        if mode == "fairdd":
            assert all(groups[i] == s % num_groups for i in members)
        if end > start:
            assert segments.weights[start:end].sum().item() == pytest.approx(1, abs=1e-6)


def test_unknown_mode():
    with pytest.raises(ValueError, match="unknown debias mode 'fair'; one of: none, fairdd"):
        debias.mode("fair")
