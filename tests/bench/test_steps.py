"""The benchmark measures the same computation on both sides."""

import pytest
import torch

from fastdd import ops, rng
from fastdd.bench import published, steps

CPU = torch.device("cpu")


@pytest.mark.parametrize("operation", ops.DSA_OPS)
def test_published_augmentation_equals_ours(operation):
    x = rng.normal(rng.key(0, "x"), 5 * 3 * 256).view(5, 3, 16, 16).double()
    for draw in range(8):
        row = ops.dsa_params(operation, rng.lanes(rng.key(draw, "row"), 1), (16, 16), dtype=torch.float64)
        named = published.operation_of(row[0])
        assert named in (operation, "flip")  # a crop by nothing is an identity, which counts as a flip
        assert (published.augment(x, row[0], named) - ops.augment(x, row)).abs().max() < 1e-12


def test_rows_match_and_have_ratios():
    dataset = steps.random_dataset(classes=3, groups=3, per_class=12, size=16)
    rows = steps.run(CPU, 2, dataset, ipc=2, batch_real=8, width=8, depth=2)
    assert [(row["case"], row["backend"]) for row in rows] == [
        ("step/dm", "reference-loop"),
        ("step/dm", "fastdd"),
        ("step/dm+fairdd", "reference-loop"),
        ("step/dm+fairdd", "fastdd"),
    ]
    for row in rows[1::2]:
        assert row["match"], row
        assert row["speedup_vs_reference_loop"] > 0
        assert row["error"] < 1e-5
    assert all(row["ms_p25"] <= row["ms_p50"] <= row["ms_p75"] for row in rows)


def test_a_wrong_result_gets_no_ratio(monkeypatch):
    dataset = steps.random_dataset(classes=2, groups=2, per_class=6, size=16)
    right = steps.dm.loss
    monkeypatch.setattr(steps.dm, "loss", lambda *arguments: 1.001 * right(*arguments))
    rows = steps.run(CPU, 1, dataset, ipc=1, batch_real=4, width=4, depth=1)
    assert not any(row["match"] for row in rows[1::2])
    assert not any("speedup_vs_reference_loop" in row for row in rows)
