"""Every Triton kernel: semantics in the interpreter (check_*.py), resources on sm_90 by compilation (compile_*.py)."""

import json
from pathlib import Path

import kernel_scripts
import pytest

from fastdd.kernels.config import table
from fastdd.ops._dispatch import has_triton

CHECKS = sorted(path.name for path in Path(__file__).parent.glob("check_*.py"))
# Those that take longest (norm_act_pool, group_grad) begin among the first.
COMPILES = sorted((path.name for path in Path(__file__).parent.glob("compile_*.py")), reverse=True)
# Rows of the table whose kernels are matrix products, and so must use the tensor cores.
TENSOR_CORES = {
    *("kde_tf32x3", "kde_tf32x3_narrow", "kde_tf32", "kde_tf32_narrow"),
    *("cf_sums", "cf_slopes", "cf_products"),
    *("outer_tiles", "outer_tiles_odd", "outer_tiles_fp32", "outer_flat", "outer_flat_fp32", "matmul_tiles_fp32"),
}

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(not has_triton(), reason="triton is not installed")]


@pytest.mark.parametrize("script", COMPILES)
def test_configurations_compile_for_sm_90_without_spills(script):
    rows = json.loads(kernel_scripts.answer(script))
    assert rows
    for row in rows:
        assert row["STACK"] == 0, row
        assert row["shared"] <= 227 * 1024, row
        assert row["wgmma"] or row["config"] not in TENSOR_CORES, row


@pytest.mark.parametrize("script", CHECKS)
def test_kernels_in_the_interpreter_agree_with_float64(script):
    assert kernel_scripts.answer(script).strip() == "checked"


def test_every_configuration_of_sm_90_is_compiled():
    rows = [row for script in COMPILES for row in json.loads(kernel_scripts.answer(script))]
    assert {row["config"] for row in rows} == set(table("sm_90"))
