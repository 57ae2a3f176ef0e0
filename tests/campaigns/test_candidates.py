"""Launch configurations that are tried on a GPU: each fits into one before any is timed there."""

import kernel_scripts
import pytest

from fastdd.ops._dispatch import has_triton

pytestmark = [pytest.mark.campaigns, pytest.mark.skipif(not has_triton(), reason="triton is not installed")]


def test_candidates_of_split_convolutions_compile_for_sm_90_without_spills(monkeypatch):
    aot = pytest.importorskip("aot")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(kernel_scripts.ROOT / ".cache" / "triton"))
    rows = [aot.compile_for_sm_90(job) for job in aot.jobs("candidates_conv3x3.py")]
    assert rows
    for row in rows:
        assert row["STACK"] == 0, row
        assert row["shared"] <= 227 * 1024, row
