"""Every Triton kernel: semantics in the interpreter (check_*.py), resources on sm_90 by compilation (compile_*.py)."""

import importlib.util
import os
import time
from pathlib import Path

import kernel_scripts
import pytest

from fastdd.kernels.config import table
from fastdd.ops._dispatch import has_triton

CHECKS = sorted(path.name for path in Path(__file__).parent.glob("check_*.py"))
COMPILES = sorted(path.name for path in Path(__file__).parent.glob("compile_*.py"))
# Rows of the table whose kernels are matrix products, and so must use the tensor cores.
TENSOR_CORES = {
    *("kde_tf32x3", "kde_tf32x3_narrow", "kde_tf32", "kde_tf32_narrow"),
    *("cf_sums", "cf_slopes", "cf_products"),
    *("outer_tiles", "outer_tiles_odd", "outer_tiles_fp32", "outer_flat", "outer_flat_fp32", "matmul_tiles_fp32"),
}
SOURCE = """
import triton
import triton.language as tl

OFFSET = tl.constexpr(1.0)

@triton.jit
def moved(x):
    return x + OFFSET

@triton.jit
def kernel(X, n, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(X + i, mask=i < n)
    tl.store(X + i, moved(x) * x, mask=i < n)
"""

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(not has_triton(), reason="triton is not installed")]


@pytest.fixture
def aot(monkeypatch):
    """The module, with what Triton compiles kept under .cache/."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(kernel_scripts.ROOT / ".cache" / "triton"))
    return pytest.importorskip("aot")


def within(row: dict) -> bool:
    """Whether a kernel fits into an H200, without spilled registers, and uses the tensor cores where it should."""
    tensor_cores = row["wgmma"] or row["config"] not in TENSOR_CORES
    return row["STACK"] == 0 and row["shared"] <= 227 * 1024 and tensor_cores


@pytest.mark.parametrize("script", COMPILES)
def test_configurations_fit_into_sm_90_without_spills(aot, script):
    rows = [aot.answer(job) for job in aot.jobs(script)]
    assert rows
    assert [row for row in rows if not within(row)] == []


@pytest.mark.parametrize("script", CHECKS)
def test_kernels_in_the_interpreter_agree_with_float64(script):
    assert kernel_scripts.answer(script).strip() == "checked"


def test_every_configuration_of_sm_90_is_compiled(aot):
    assert {job.config for script in COMPILES for job in aot.jobs(script)} == set(table("sm_90"))


def made(folder: Path, source: str):
    """The kernel of a module of its own."""
    path = folder / f"made{len(os.listdir(folder))}.py"  # Python keeps the lines of a file by its name
    path.write_text(source)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.kernel


def test_what_has_changed_is_not_answered_by_what_was_committed(aot, tmp_path):
    def digest(old="", new="", row=None, **changed):
        job = aot.Job(made(tmp_path, SOURCE.replace(old, new)), "", {"X": "*fp32"}, row=row or {"SIZE": 64})
        return aot.digest(job._replace(**changed))

    assert digest() == digest("def moved", "\n# Where and why.\ndef moved")
    other = [digest(), digest("* x", "- x"), digest("x + OFFSET", "x - OFFSET"), digest("1.0", "2.0")]
    other += [digest(row={"SIZE": 128}), digest(row={"SIZE": 64, "num_warps": 8}), digest(aligned=["n"])]
    other += [digest(kinds={"X": "*bf16"}), digest(kinds={"X": "*fp32", "n": "i64"})]
    assert len(set(other)) == len(other)
    with pytest.raises(TypeError, match="moved reads OFFSET"):
        digest("tl.constexpr(1.0)", "[1.0]")


def test_a_changed_kernel_is_compiled_and_its_spills_are_told(aot, tmp_path):
    starved = {"SIZE": 2048, "num_warps": 1, "maxnreg": 24}
    row = aot.answer(aot.Job(made(tmp_path, SOURCE), "", {"X": "*fp32"}, row=starved))
    assert row["STACK"] > 0
    assert not within(row)


@pytest.fixture
def committed(aot):
    if aot.committed()["triton"] != aot.triton.__version__:
        pytest.skip(f"the committed answers are Triton {aot.committed()['triton']}'s")
    return aot.committed()["kernels"]


@pytest.mark.full
def test_the_committed_answers_are_of_the_kernels_as_they_are(aot, committed):
    now = {aot.digest(job) for script in COMPILES for job in aot.jobs(script)}
    assert now == committed.keys(), "write them: python tests/kernels/record.py"


@pytest.mark.full
@pytest.mark.parametrize("script", COMPILES)
def test_the_committed_answers_are_the_compilers(aot, committed, script, monkeypatch, tmp_path):
    """An eighth of them, another every day; with FASTDD_EVERY_KERNEL (``make kernels``) all."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    today = int(time.time()) // 86400 % 8
    for job in aot.jobs(script):
        key = aot.digest(job)
        if os.environ.get("FASTDD_EVERY_KERNEL") or int(key, 16) % 8 == today:
            assert committed[key] == aot.compile_for_sm_90(job), key
