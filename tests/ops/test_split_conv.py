"""float32 convolutions as bfloat16 parts: what the arithmetic can hold, who chooses them, and the kernels on a GPU.

The kernels in Triton's interpreter: tests/kernels/check_conv3x3.py. A step on a pretended GPU: tests/device.
"""

import pytest
import torch
import torch.nn.functional as F

from fastdd import ops
from fastdd.bench.framework import tune
from fastdd.kernels import config
from fastdd.ops import ConvBlock, _dispatch, conv3x3
from fastdd.reference import norm_act_pool

SIX = [(2, 0), (0, 2), (1, 1), (1, 0), (0, 1), (0, 0)]
CUDA = torch.device("cuda")


def rounded(x, bits, how=torch.round):
    """float64 to so many significant bits."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(how(mantissa * 2**bits) / 2**bits, exponent)


def parts(x, bits, count):
    found = []
    for _ in range(count):
        found.append(rounded(x, bits))
        x = x - found[-1]
    return found


def on_tensor_cores(a, b, products, step, chunk, bits=8, count=3):
    """a b, of parts' products; every sum over ``step`` is cut off to float32, and begins anew after ``chunk``."""
    of_a, of_b = parts(a, bits, count), parts(b, bits, count)
    total = torch.zeros(len(a), b.shape[1], dtype=torch.float64)
    for first in range(0, a.shape[1], chunk):
        inner = torch.zeros_like(total)
        for i, j in products:
            for k in range(first, first + chunk, step):
                inner = rounded(inner + of_a[i][:, k : k + step] @ of_b[j][k : k + step], 24, torch.trunc)
        total = rounded(total + inner, 24)
    return total


def test_six_products_and_sums_of_their_own_hold_float32s_error():
    """A model of the tensor cores (Fasi et al. 2021: sums are cut off): why the kernels are as they are."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(24, 1152, generator=generator), torch.randn(1152, 24, generator=generator)
    truth = a.double() @ b.double()

    def error(result):
        return ((result.double() - truth).norm() / truth.norm()).item()

    plain, wide = error(a @ b), (a.double(), b.double())
    assert error(on_tensor_cores(*wide, SIX, 16, 64)) <= plain
    assert error(on_tensor_cores(*wide, SIX, 16, 32)) <= plain
    assert error(on_tensor_cores(*wide, [(1, 0), (0, 1), (0, 0)], 8, 32, bits=11, count=2)) <= 2 * plain  # TF32
    # What is cheaper does not.
    assert error(on_tensor_cores(*wide, SIX, 16, 1152)) > 2 * plain
    assert error(on_tensor_cores(*wide, SIX[:2] + SIX[3:], 16, 64)) > 5 * plain
    assert error(on_tensor_cores(*wide, SIX[3:], 16, 64)) > 5 * plain


def test_gpus_run_cudnn_unless_the_kernels_are_chosen(monkeypatch):
    monkeypatch.delenv("FASTDD_CONVOLUTIONS", raising=False)
    monkeypatch.delenv("FASTDD_BACKEND", raising=False)
    rows = {row.op: row for row in ops.implementations("cuda")}
    for op in ("conv3x3", "conv3x3_weight", "conv_block", "pack_filters"):
        assert rows[op].active == "reference"
        assert "FASTDD_CONVOLUTIONS=split, which never ran on a GPU" in rows[op].others["triton"]
        assert _dispatch.choose(op, "auto", CUDA) == "reference"
    monkeypatch.setenv("FASTDD_CONVOLUTIONS", "split")
    chosen = "triton" if _dispatch.has_triton() else "reference"
    assert {row.op: row.active for row in ops.implementations("cuda")}["conv3x3"] == chosen
    monkeypatch.setenv("FASTDD_CONVOLUTIONS", "fast")
    with pytest.raises(ValueError, match="FASTDD_CONVOLUTIONS='fast' is not one of cudnn, split"):
        _dispatch.choose("conv3x3", "auto", CUDA)


@pytest.mark.skipif(not _dispatch.has_triton(), reason="triton is not installed")
def test_tuning_puts_every_candidate_in_the_table(monkeypatch):
    seen, cpu = [], torch.device("cpu")
    before = config.config("conv3x3_weight", cpu)

    def do_bench(call, return_mode):
        call()
        return -len(seen)

    monkeypatch.setattr("triton.testing.do_bench", do_bench)
    found = tune.measured(
        "conv3x3_weight",
        lambda: seen.append(config.config("conv3x3_weight", cpu)),
        tune.CANDIDATES["conv3x3_weight"],
    )
    assert [{**row, "enable_fp_fusion": True} for row in tune.CANDIDATES["conv3x3_weight"]] == seen
    assert [row["ms"] for row in found] == sorted(row["ms"] for row in found)
    assert config.config("conv3x3_weight", cpu) == before
    for name, candidates in tune.CANDIDATES.items():
        assert config.table("sm_90")[name] in candidates


def derivatives(function, tensors, g, v):
    inputs = [t.to(g.dtype).requires_grad_() for t in tensors]
    y, g = function(*inputs), g.clone().requires_grad_()
    first = torch.autograd.grad(y, inputs, g, create_graph=True)
    return [t.detach() for t in (y, *first, *torch.autograd.grad(first, [g, *inputs[:2]], v))]


def case(n, inputs, outputs, height, width):
    filters = torch.randn(outputs, inputs, 3, 3, device=CUDA) / (9 * inputs) ** 0.5
    return [torch.randn(n, inputs, height, width, device=CUDA), filters, torch.randn(outputs, device=CUDA)]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "shape", [(300, 128, 128, 16, 16), (3, 48, 80, 7, 9), (1, 16, 16, 1, 2), (100, 128, 128, 8, 8)]
)
def test_gpu_holds_the_error_rule_and_two_runs_are_equal(shape):
    torch.manual_seed(0)
    tensors = case(*shape)
    g = torch.randn(shape[0], shape[2], *shape[3:], device=CUDA)
    v = [torch.randn_like(t) for t in tensors]

    def plain(*inputs):
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            return F.conv2d(*inputs, padding=1)

    def split(*inputs):
        return conv3x3(*inputs, backend="triton")

    exact = derivatives(plain, tensors, g.double(), [t.double() for t in v])
    got, again, theirs = (derivatives(function, tensors, g, v) for function in (split, split, plain))
    for mine, repeated, other, truth in zip(got, again, theirs, exact, strict=True):
        error, allowed = ((t.double() - truth).norm() for t in (mine, other))
        assert error <= 2 * allowed + 1.2e-7 * truth.norm()
        assert torch.equal(mine, repeated)


@pytest.mark.gpu
@pytest.mark.parametrize("pool", norm_act_pool.POOLS)
@pytest.mark.parametrize("side", [16, 15, 8, 4, 2])
def test_gpu_blocks_hold_the_error_rule(side, pool):
    torch.manual_seed(0)
    x, filters, _ = case(37, 128, 128, side, side)
    affine = torch.randn(128, device=CUDA), torch.randn(128, device=CUDA)

    def plain(dtype):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            z = F.conv2d(x.to(dtype), filters.to(dtype), padding=1)
        return norm_act_pool.norm_act_pool(z, *(t.to(dtype) for t in affine), 1e-5, pool)

    got, truth = ConvBlock(filters, *affine, pool=pool, backend="triton")(x), plain(torch.float64)
    assert (got.double() - truth).norm() <= 2 * (plain(torch.float32).double() - truth).norm()
