"""Every Triton kernel: semantics in the interpreter (check_*.py), resources on sm_90 by compilation (compile_*.py)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastdd.kernels.config import table
from fastdd.ops._dispatch import has_triton

HERE = Path(__file__).parent
CHECKS = sorted(path.name for path in HERE.glob("check_*.py"))
COMPILES = sorted(path.name for path in HERE.glob("compile_*.py"))
# Rows of the table whose kernels are matrix products, and so must use the tensor cores.
TENSOR_CORES = {
    *("kde_tf32x3", "kde_tf32x3_narrow", "kde_tf32", "kde_tf32_narrow"),
    *("outer_tiles", "outer_tiles_odd", "outer_tiles_fp32", "outer_flat", "outer_flat_fp32", "matmul_tiles_fp32"),
}

pytestmark = pytest.mark.skipif(not has_triton(), reason="triton is not installed")


def run(script: str, **environment: str) -> str:
    """In a process of its own: one is interpreted or compiled, not both."""
    done = subprocess.run(
        [sys.executable, str(HERE / script)], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", CHECKS)
def test_kernels_in_the_interpreter_agree_with_float64(script):
    assert run(script, TRITON_INTERPRET="1").strip() == "checked"


@pytest.mark.aot
def test_every_configuration_compiles_for_sm_90_without_spills(tmp_path):
    rows = []
    for script in COMPILES:
        rows += json.loads(run(script, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)))
    assert {row["config"] for row in rows} == set(table("sm_90"))
    for row in rows:
        assert row["STACK"] == 0, row
        assert row["shared"] <= 227 * 1024, row
        assert row["wgmma"] or row["config"] not in TENSOR_CORES, row
