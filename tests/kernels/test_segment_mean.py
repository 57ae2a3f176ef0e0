import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastdd.kernels.config import table
from fastdd.ops._dispatch import has_triton

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(not has_triton(), reason="triton is not installed")


def run(script: str, **environment: str) -> str:
    """In a process of its own: one is interpreted or compiled, not both."""
    done = subprocess.run(
        [sys.executable, str(HERE / script)], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_in_the_interpreter_agree_with_float64():
    assert run("check_segment_mean.py", TRITON_INTERPRET="1").strip() == "checked"


@pytest.mark.aot
def test_every_kernel_compiles_for_sm_90_without_spills(tmp_path):
    rows = json.loads(run("compile_segment_mean.py", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)))
    assert {row["kernel"] for row in rows} == {
        "segment_sums",
        "segment_finish",
        "segment_totals",
        "segment_spread_rows",
    }
    for row in rows:
        assert row["LOCAL"] == 0, row
        assert row["shared"] <= 227 * 1024, row


def test_table_names_the_kernels_that_are_launched():
    assert set(table("sm_90")) >= {"segment_sums", "segment_finish", "segment_totals", "segment_spread"}
