"""Launch configurations that are tried on a GPU: each fits into one before any is timed there."""

import json

import kernel_scripts
import pytest

from fastdd.ops._dispatch import has_triton

pytestmark = [pytest.mark.campaigns, pytest.mark.skipif(not has_triton(), reason="triton is not installed")]


def test_candidates_of_split_convolutions_compile_for_sm_90_without_spills():
    rows = json.loads(kernel_scripts.answer("candidates_conv3x3.py"))
    assert rows
    for row in rows:
        assert row["STACK"] == 0, row
        assert row["shared"] <= 227 * 1024, row
