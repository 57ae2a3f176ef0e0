"""Table, picture and commands."""

import io
import json
import platform
import subprocess
import sys

import pytest
import torch
from PIL import Image
from rich.console import Console

from fastdd.bench import cases
from fastdd.bench.framework import runner, schema
from fastdd.bench.framework.table import rate_and_share, table
from fastdd.cli import main
from fastdd.cli.console import console

pytestmark = pytest.mark.usefixtures("once")


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 200)  # so that no column is folded, however long calls took
    threads = torch.get_num_threads()

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main(["bench", *map(str, arguments)])
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    yield call
    torch.set_num_threads(threads)


def shown(document):
    console = Console(width=200, file=io.StringIO())
    console.print(table(document))
    return console.file.getvalue()


# A case of every kind that the table and the picture know: ops, steps, and scales of one number.
SOME = ("augment/mix", "segment_mean", "kde*", "step/dm", "step/dm+fairdd", "step/dc+fairdd", "scale/groups")


@pytest.mark.parametrize("globs", [SOME, pytest.param((), marks=pytest.mark.full)], ids=["some", "all"])
def test_quick_run_of_cases_writes_a_valid_file_and_picture(run, tmp_path, globs):
    written, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    quick = ("--device", "cpu", "--quick", "--reps", 1, "--threads", 1)
    chosen = [part for glob in globs for part in ("--case", glob)]
    code, text, errors = run(*quick, *chosen, "--json", written, "--plot", picture)
    assert (code, errors) == (0, "")
    document = schema.read(written)
    assert {row["case"] for row in document["rows"]} == {case.name for case in cases.select(list(globs))}
    assert all(row["match"] for row in document["rows"])
    assert all(row["speedup"]["torch"] for row in document["rows"] if row["backend"] == "fastdd")
    meta = document["meta"]
    assert (meta["quick"], meta["reps"], meta["budget_s"]) == (True, 1, 0)
    assert meta["keeps_freed_memory"] == (platform.libc_ver()[0] == "glibc")
    assert meta["ceilings"]["copy_gbs"] > 0
    assert set(meta["ceilings"]["gemm_gflops"]) == {"float32", "bfloat16"}
    assert all(words in text for words in ("step/dm+fairdd", "scale/groups groups=10", "x torch", "20 to 80 %"))
    width, height = Image.open(picture).size
    assert Image.open(picture).format == "PNG"
    assert 1000 <= width <= 2500
    assert (300 if globs else 700) <= height <= 3200  # a band a case
    code, text, _ = run("validate", written)
    assert code == 0
    assert f"valid, {len(document['rows'])} rows" in text


def test_list(run):
    code, text, _ = run("--list")
    assert code == 0
    assert all(case.label in text for case in cases.CASES)
    assert run("--list", "--case", "augment/c*")[1].split()[0] == "augment/color"


def one_line(result, code, *words):
    assert result[0] == code, result
    assert result[2].startswith("error: ")
    assert result[2].count("\n") == 1
    assert all(word in result[2] for word in words), result[2]


def test_bad_usage_is_one_line_and_exit_code_2(run, tmp_path):
    one_line(run("--case", "augment"), 2, "no case matches 'augment'", "augment/flip")
    one_line(run("--case", "augment/flip", "--upstream", tmp_path), 2, "is no checkout of DatasetCondensation")
    one_line(run("--reps", 0), 2, "--reps")
    one_line(run("--device", "tpu"), 2, "unknown device 'tpu'")
    one_line(run("--colour"), 2, "--colour")
    one_line(run("validate", tmp_path / "none.json"), 2, "none.json")
    (tmp_path / "bad.json").write_text('{"schema": 1, "meta": {}, "rows": []}')
    one_line(run("validate", tmp_path / "bad.json"), 2, "bad.json: meta.utc: Field required")


def test_unwritable_files_are_told_before_the_work(run, tmp_path):
    for option in ("--json", "--plot"):
        one_line(run("--case", "segment_mean", option, tmp_path / "no" / "x"), 1, "the folder of")


def test_a_mismatch_is_exit_code_1_and_the_file_is_written(run, tmp_path, monkeypatch):
    from fastdd import ops

    monkeypatch.setattr(ops, "segment_mean", lambda x, offsets, weights: x[: len(offsets) - 1])
    result = run("--device", "cpu", "--case", "segment_mean", "--quick", "--json", tmp_path / "f.json")
    one_line(result, 1, "segment_mean", "fastdd is off by")
    assert "NO: " in result[1]
    ours = [row for row in schema.read(tmp_path / "f.json")["rows"] if row["backend"] == "fastdd"]
    assert not any(row["match"] for row in ours)


def test_what_raises_is_exit_code_1_and_in_the_file(run, tmp_path, monkeypatch):
    from fastdd import ops

    monkeypatch.setattr(ops, "segment_mean", lambda *_: 1 / 0)
    result = run("--device", "cpu", "--case", "segment_mean", "--quick", "--json", tmp_path / "f.json")
    one_line(result, 1, "ZeroDivisionError")
    assert "error" in result[1]
    failed = schema.read(tmp_path / "f.json")["meta"]["errors"]
    assert [(row["case"], row["backend"]) for row in failed] == [
        ("segment_mean segments=10", "fastdd"),
        ("segment_mean segments=100", "fastdd"),
    ]


def test_resume_measures_what_the_file_lacks(run, tmp_path):
    words = ("--device", "cpu", "--quick", "--reps", 1, "--json", tmp_path / "f.json", "--resume")
    assert run(*words, "--case", "augment/flip")[0] == 0
    first = schema.read(tmp_path / "f.json")["rows"]
    code, text, _ = run(*words, "--case", "augment/*p")  # crop besides
    assert (code, "augment/flip" in text, "augment/crop" in text) == (0, True, True)
    assert schema.read(tmp_path / "f.json")["rows"][: len(first)] == first
    assert run(*words, "--case", "augment/flip")[0] == 0  # nothing left to do
    one_line(run("--resume"), 2, "--resume goes on with a file: name it with --json")
    one_line(run(*words[:4], 2, *words[5:], "--case", "augment/cutout"), 2, "has reps 1, and this is 2")


def test_table_gives_rates_and_shares():
    ceilings = {"copy_gbs": 10.0, "gemm_gflops": {"float32": 100.0}}
    row = {"median_us": 1000.0, "bytes": 5_000_000, "flops": 0, "dtype": "float32"}
    assert rate_and_share(row, ceilings) == ("5.0 GB/s", 0.5)
    assert rate_and_share(row | {"flops": 90_000_000}, ceilings) == ("90.0 GFLOP/s", pytest.approx(0.9))
    assert rate_and_share(row | {"flops": 90_000_000, "dtype": "float16"}, ceilings) == ("5.0 GB/s", 0.5)


def test_peak_memory_is_a_column_where_it_was_measured():
    (document,) = runner.run(cases.select(["augment/flip"]), torch.device("cpu"), quick=True, reps=1, budget=0)
    assert "peak memory" not in shown(document)
    document["rows"][0]["peak_bytes"], document["rows"][1]["peak_bytes"] = 2_345_678_901, 12_345_678
    text = shown(document)
    assert all(words in text for words in ("peak memory", "2.35 GB", "12.3 MB"))


def test_short_times_on_a_gpu_are_called_launch_bound():
    (document,) = runner.run(cases.select(["augment/flip"]), torch.device("cpu"), quick=True, reps=1, budget=0)
    assert "launch-bound" not in shown(document)
    for row in document["rows"]:
        row |= {"device": "cuda:0", "median_us": 10.0}
    assert shown(document).count("launch-bound") == 3


def test_as_a_module_and_with_the_default_malloc(tmp_path):
    command = [sys.executable, "-m", "fastdd.bench", "--case", "augment/flip", "--quick", "--device", "cpu"]
    command += ["--default-malloc", "--threads", "1", "--json", "f.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    meta = json.loads((tmp_path / "f.json").read_text())["meta"]
    assert (meta["keeps_freed_memory"], meta["threads"]) == (False, 1)
