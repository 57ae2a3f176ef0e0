"""Predicted times of a GPU that is not here: by hand, and as the command prints them."""

import json

import pytest
import torch
from typer.testing import CliRunner

from fastdd.bench.cases import select
from fastdd.bench.framework.model import GPUS, predict, predictions
from fastdd.cli.bench import app

H200 = GPUS["h200"]


def test_the_largest_bound_holds():
    # 4.249 GB/ms, 51.319 GFLOP/ms, 0.034 ms a launch.
    by_memory = predict(42_490_000_000, 51_319_000, torch.float32, 10, H200)
    assert (by_memory.bound, by_memory.eager) == ("memory", pytest.approx(10_000))
    assert by_memory.graph == pytest.approx(10_020)
    by_arithmetic = predict(4_249_000, 7_776_340_000_000, torch.bfloat16, 10, H200)
    assert (by_arithmetic.bound, by_arithmetic.eager) == ("arithmetic", pytest.approx(10_000))
    by_launches = predict(4_249_000, 51_319_000, torch.float32, 10, H200)
    assert (by_launches.bound, by_launches.eager, by_launches.graph) == ("launches", 340, pytest.approx(21))
    assert predict(4_249_000, 0, torch.float32, None, H200).bound == "memory"


def test_a_step_has_its_recorded_launches_and_the_measured_time():
    (row,) = predictions(select(["step/dm"]), H200)
    # 2,560 real images forward, 100 synthetic ones forward and back: 280 GFLOP.
    assert row["flops"] == (2560 + 200) * (2 * 128 * 27 * 32**2 + 2 * 128 * 1152 * (16**2 + 8**2))
    assert row["launches"] <= 60
    # Six products in bfloat16 of all but the first block's.
    first, others = 2760 * 2 * 128 * 27 * 32**2, 2760 * 2 * 128 * 1152 * (16**2 + 8**2)
    assert row["split"] == pytest.approx(first / 51.319e6 + 6 * others / 777.634e6, rel=1e-4)
    assert row["measured"] == pytest.approx(16_203, rel=1e-3)


def test_the_command_predicts_and_measures_nothing(tmp_path):
    path = tmp_path / "model.json"
    result = CliRunner().invoke(app, ["--model", "h200", "--case", "segment_mean", "--json", str(path)])
    assert result.exit_code == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["case"] for row in rows] == ["segment_mean segments=10", "segment_mean segments=100"]
    assert all(row["bound"] == "launches" for row in rows)


def test_an_unknown_gpu_is_told():
    result = CliRunner().invoke(app, ["--model", "abacus"])
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == "--model abacus is not one of h200"
