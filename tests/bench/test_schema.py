"""What a result file must be, and what is said when it is not; every committed one is."""

import copy
import json
from pathlib import Path

import pytest

from fastdd.bench.framework import schema

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"

ROW = {
    "case": "augment/flip",
    "backend": "fastdd",
    "device": "cpu",
    "dtype": "float32",
    "shape": {"images": [256, 3, 32, 32]},
    "reps": 7,
    "median_us": 2.0,
    "q20_us": 1.5,
    "q80_us": 2.5,
    "bytes": 10,
    "flops": 0,
    "speedup": {"reference-loop": 2.0, "torch": None, "upstream": None},
    "match": True,
    "max_err": 1e-7,
    "err_budget": 2e-7,
    "peak_bytes": None,
}
META = {
    "utc": "2026-01-02T03:04:05Z",
    "git": {"commit": "0" * 40, "dirty": False},
    "fastdd": "0.1.0",
    "torch": "2.13.0",
    "triton": None,
    "faiss": None,
    "python": "3.11.7",
    "cuda": None,
    "driver": None,
    "device": "a processor",
    "compute_capability": None,
    "sm_count": None,
    "cpu": "a processor",
    "threads": 2,
    "OMP_NUM_THREADS": None,
    "simd_active": "avx512",
    "keeps_freed_memory": True,
    "argv": [],
    "quick": False,
    "seed": 0,
    "reps": 7,
    "budget_s": 5.0,
    "ceilings": {"copy_gbs": 10.0, "gemm_gflops": {"float32": 100.0}},
    "upstream": None,
    "errors": [],
}
FAILED = ROW | {"match": False, "speedup": dict.fromkeys(ROW["speedup"])}
UNTIMED = FAILED | {"reps": 0, "median_us": None, "q20_us": None, "q80_us": None, "max_err": None, "err_budget": None}


def document(*rows, **meta):
    return copy.deepcopy({"schema": 3, "meta": META | meta, "rows": list(rows)})


@pytest.mark.parametrize(
    "rows", [[], [ROW], [ROW, ROW | {"backend": "torch"}], [ROW | {"peak_bytes": 4096}], [FAILED], [UNTIMED]]
)
def test_good_files_round_trip(tmp_path, rows):
    path = tmp_path / "good.json"
    schema.write(path, document(*rows, git=None))
    assert schema.read(path) == document(*rows, git=None)


BAD = {
    "no speed-up without a match": (FAILED | {"speedup": ROW["speedup"]}, "does not match has no speed-up"),
    "over budget": (ROW | {"max_err": 3e-7}, "max_err 3e-07 is not within err_budget 2e-07"),
    "no error given": (ROW | {"max_err": None}, "max_err None is not within"),
    "quantiles": (ROW | {"q20_us": 2.1}, "q20_us <= median_us <= q80_us does not hold"),
    "some times": (FAILED | {"q80_us": None}, "null together"),
    "no repetitions": (ROW | {"reps": 0}, "reps of at least 1"),
    "zero time": (ROW | {"q20_us": 0.0}, r"rows\[0\].q20_us: .*greater than 0.*got 0.0"),
    "text for a number": (ROW | {"bytes": "10"}, r"rows\[0\].bytes: .*got '10'"),
    "unknown backend": (ROW | {"backend": "jax"}, r"rows\[0\].backend: .*got 'jax'"),
    "torch's dtype": (ROW | {"dtype": "torch.float32"}, r"rows\[0\].dtype"),
    "less than no memory": (ROW | {"peak_bytes": -1}, r"rows\[0\].peak_bytes: .*greater than or equal to 0.*got -1"),
    "an extra field": (ROW | {"note": "x"}, r"rows\[0\].note: Extra inputs are not permitted"),
    "a field is missing": ({k: v for k, v in ROW.items() if k != "match"}, r"rows\[0\].match: Field required"),
    "speed-ups of another baseline": (ROW | {"speedup": {"jax": 1.0}}, r"rows\[0\].speedup"),
}


@pytest.mark.parametrize(("row", "message"), BAD.values(), ids=BAD)
def test_bad_rows_are_refused_in_one_line(tmp_path, row, message):
    with pytest.raises(ValueError, match=message) as error:
        schema.validate(document(row), "f.json")
    assert str(error.value).startswith("f.json: rows[0]")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        schema.write(tmp_path / "f.json", document(row))
    assert not (tmp_path / "f.json").exists()


def test_files_of_schema_1_are_valid_as_they_were(tmp_path):
    old = document({name: value for name, value in ROW.items() if name != "peak_bytes"}) | {"schema": 1}
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert schema.read(tmp_path / "old.json") == old
    with pytest.raises(ValueError, match="case_seconds is a field of schema 3, and this is schema 1"):
        schema.validate({**old, "meta": META | {"case_seconds": {}}}, "old.json")
    old["rows"][0]["peak_bytes"] = 4096
    with pytest.raises(ValueError, match="peak_bytes is a field of schema 2, and this is schema 1"):
        schema.validate(old, "old.json")


def test_bad_documents_are_refused():
    with pytest.raises(ValueError, match="repeats the case, backend and shape"):
        schema.validate(document(ROW, ROW), "f")
    with pytest.raises(ValueError, match=r"meta.git.commit: .*got 'abc'"):
        schema.validate(document(git={"commit": "abc", "dirty": False}), "f")
    with pytest.raises(ValueError, match=r"meta.threads.*and 1 more"):
        schema.validate(document(threads=0, reps=0), "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has schema None, not 1 to 3"),
        ('{"schema": 4}', "has schema 4, not 1 to 3"),
        ('{"schema": 1, "rows": [NaN]}', "NaN is no JSON"),
    ],
)
def test_unreadable_files(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        schema.read(path)


def test_what_is_not_finite_becomes_null(tmp_path):
    schema.write(tmp_path / "f.json", document(FAILED | {"max_err": float("nan"), "err_budget": float("inf")}))
    (row,) = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert (row["max_err"], row["err_budget"]) == (None, None)


def test_committed_results_are_valid_and_name_no_folder():
    # The others are counted or predicted.
    for path in set(RESULTS.glob("*.json")) - {RESULTS / "launches.json", *RESULTS.glob("predicted-*.json")}:
        content = schema.read(path)
        assert not content["meta"]["quick"], path
        assert not any(word.startswith("/") for word in content["meta"]["argv"]), path
