"""Predicted times of a GPU that is not here: by hand, and as the command prints them."""

import json

import pytest
import torch
from typer.testing import CliRunner

from fastdd.bench.cases import CASES, select
from fastdd.bench.framework import prediction_file, schema
from fastdd.bench.framework.model import GPUS, RESULTS, predict, predictions, recorded_launches
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


def test_a_step_has_its_recorded_launches():
    (row,) = predictions(select(["step/dm"]), H200)
    # 2,560 real images forward, 100 synthetic ones forward and back: 280 GFLOP.
    assert row["flops"] == (2560 + 200) * (2 * 128 * 27 * 32**2 + 2 * 128 * 1152 * (16**2 + 8**2))
    assert row["launches"] <= 60
    # Six products in bfloat16 of all but the first block's.
    first, others = 2760 * 2 * 128 * 27 * 32**2, 2760 * 2 * 128 * 1152 * (16**2 + 8**2)
    assert row["split"] == pytest.approx(first / 51.319e6 + 6 * others / 777.634e6, rel=1e-4)


def test_the_command_predicts_and_measures_nothing(tmp_path):
    path = tmp_path / "model.json"
    result = CliRunner().invoke(app, ["--model", "h200", "--case", "segment_mean", "--json", str(path)])
    assert result.exit_code == 0
    content = json.loads(path.read_text())
    rows, meta = content["rows"], content["meta"]
    assert [row["case"] for row in rows] == ["segment_mean segments=10", "segment_mean segments=100"]
    assert all(row["bound"] == "launches" and "measured" not in row for row in rows)
    assert meta["gpu"] == {name: value for name, value in vars(H200).items() if name != "results"}
    assert meta["git"] is None or len(meta["git"]["commit"]) == 40


def measurement(path, **meta):
    """The committed one of 2026-11-20, with another meta."""
    content = schema.read(RESULTS / "h200-2026-11-20.json")
    content["meta"] |= meta
    path.write_text(json.dumps(content))
    return path


def run(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def test_a_measurement_stands_beside_predictions_that_were_made_before(tmp_path):
    globs = ("--case", "step/dm", "--case", "step/ncfm")
    before, compared = tmp_path / "predicted.json", tmp_path / "compared.json"
    assert run("--model", "h200", *globs, "--json", before).exit_code == 0
    measured = RESULTS / "h200-2026-11-20.json"
    result = run("--model", before, "--measured", measured, "--json", compared)
    assert result.exit_code == 0
    content = json.loads(compared.read_text())
    dm, ncfm = content["rows"]
    # 16.2 ms of that day beside 280 GFLOP at 51.3 TFLOP/s, 5.46 ms; NCFM had no case then.
    assert (dm["bound"], dm["measured"]) == ("arithmetic", pytest.approx(16_203, rel=1e-3))
    assert dm["ratio"] == pytest.approx(2.97, abs=0.01)
    assert (ncfm["measured"], ncfm["ratio"]) == (None, None)
    (source,) = content["meta"]["measured"]
    assert (source["file"], source["utc"]) == (measured.name, "2026-11-20T23:51:14Z")
    assert "16.203 ms   2.97" in result.output
    assert json.loads(before.read_text())["rows"][0]["eager"] == dm["eager"]


def test_what_is_no_prediction_or_no_measurement_is_told(tmp_path):
    predicted = RESULTS / "predicted-h200.json"
    quick = measurement(tmp_path / "quick.json", quick=True)
    for words, message in (
        (("--measured", quick), "--measured goes with --model"),
        (("--model", quick), "quick.json holds no predictions: fastdd bench --model h200 --json writes them"),
        (("--model", predicted, "--measured", quick), "quick.json was measured with --quick"),
        (("--model", predicted, "--measured", predicted), "meta"),
        (("--model", predicted, "--case", "abacus"), "has no case that matches 'abacus'"),
    ):
        error = run(*words).exception
        assert isinstance(error, ValueError), words
        assert message in str(error)
        assert "\n" not in str(error)


def test_committed_predictions_are_of_these_cases_and_launches():
    content = prediction_file.read(RESULTS / "predicted-h200.json")
    cure = "make predictions writes them again"
    assert [row["case"] for row in content["rows"]] == [case.label for case in CASES], cure
    counted = recorded_launches()
    assert [row["launches"] for row in content["rows"]] == [counted.get(case.label) for case in CASES], cure
    assert content["meta"]["gpu"] == {name: value for name, value in vars(H200).items() if name != "results"}, cure


def test_an_unknown_gpu_is_told():
    result = CliRunner().invoke(app, ["--model", "abacus"])
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == "--model abacus is not one of h200, nor a file"
