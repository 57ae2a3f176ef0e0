"""Every instruction set that the extension is built for gives the answers of the reference."""

import subprocess
import sys
from pathlib import Path

import pytest
from shared import once

from fastdd.core import ext as _ext

# One process a set, which is chosen when the extension is loaded, forked from one that has not loaded it. It tells what
# it is about to check.
FORKS = """
import os, sys
import torch.nn.functional, torch.library  # which takes longer than all else, and has no set of ours

answers, folder, *names = sys.argv[1:]
for name in names:
    child = os.fork()
    if not child:
        os.environ["FASTDD_SIMD"] = name
        out = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv[1:] = [name]
        exec(compile(answers, "answers", "exec"), {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""
ANSWERS = """
import sys
import torch
import torch.nn.functional as F
from fastdd import models
from fastdd.core import ext as _ext
from fastdd.core import rng
from fastdd.ops import ConvBlock, conv3x3, implementations
from fastdd.ops.augment import augment, augment_adjoint
from fastdd.ops.dsa import DSA_STRATEGY, dsa_params
from fastdd.ops.kde import kde
from fastdd.ops.segment_mean import segment_mean, segment_spread

assert _ext.build_info()["simd_active"] == sys.argv[1], _ext.build_info()
torch.manual_seed(0)

print("augment")
x = torch.randn(24, 3, 17, 19, dtype=torch.float64)
params = dsa_params(DSA_STRATEGY, rng.lanes(0, 24), (17, 19), dtype=torch.float64)
for function in (augment, augment_adjoint):
    expected = function(x, params, backend="reference")
    torch.testing.assert_close(function(x, params), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(function(x.float(), params), expected.float(), rtol=0, atol=1e-4)

print("segment_mean")
offsets, weights = torch.tensor([0, 5, 5, 24]), torch.rand(24)
mean = segment_mean(x.flatten(1), offsets, weights)
reference = segment_mean(x.flatten(1), offsets, weights, backend="reference")
torch.testing.assert_close(mean, reference, rtol=0, atol=1e-13)
spread = segment_spread(mean, offsets, weights, 24)
reference = segment_spread(mean, offsets, weights, 24, backend="reference")
torch.testing.assert_close(spread, reference, rtol=0, atol=1e-13)

print("kde")
x, weights = torch.randn(900, 21, dtype=torch.float64), torch.rand(900)
for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
    density = kde(x.to(dtype), bandwidth=2.0, weights=weights, leave_one_out=True)
    reference = kde(x, bandwidth=2.0, weights=weights, leave_one_out=True, backend="reference")
    torch.testing.assert_close(density.double(), reference, rtol=0, atol=tolerance)

print("conv3x3")  # small integers, whose sums are exact
for inputs in (3, 37):
    for outputs in (5, 41):
        x = torch.randint(-2, 3, (3, inputs, 9, 8)).float()
        filters = torch.randint(-2, 3, (outputs, inputs, 3, 3)).float()
        g = torch.randint(-2, 3, (3, outputs, 9, 8)).float()
        results = []
        for function, dtype in ((conv3x3, torch.float32), (lambda *t: F.conv2d(*t, padding=1), torch.float64)):
            leaves = [t.to(dtype).requires_grad_() for t in (x, filters)]
            y = function(*leaves)
            results.append([y, *torch.autograd.grad(y, leaves, g.to(dtype))])
        for ours, truth in zip(*results):
            assert torch.equal(ours.double(), truth)

print("conv_block")
for inputs in (3, 32):
    x, filters = torch.randn(3, inputs, 8, 8), torch.randn(21, inputs, 3, 3) / inputs
    weight, bias = torch.rand(21), torch.randn(21)
    got = ConvBlock(filters, weight, bias)(x).double()
    exact = ConvBlock(filters.double(), weight.double(), bias.double(), backend="reference")(x.double())
    assert (got - exact).norm() <= 2e-6 * exact.norm()
    half = ConvBlock(filters, weight, bias, dtype=torch.bfloat16)(x.bfloat16())
    assert (half.double() - exact).norm() <= 1e-2 * exact.norm()

print("conv_block_bf16")
rows = {row.op: row for row in implementations("cpu")}
own = sys.argv[1] == "avx512bf16"
assert rows["conv_block_bf16"].active == ("native" if own else "reference"), rows["conv_block_bf16"]
if not own:
    try:
        ConvBlock(filters, weight, bias, dtype=torch.bfloat16, backend="native")(x.bfloat16())
    except RuntimeError as error:
        assert "AVX-512 BF16" in str(error)
    else:
        raise AssertionError("a backend asked for by name fell back")

print("dual blocks")
net = models.build("ConvNetD2", 3, 4, (9, 8), width=37)
theta = torch.cat([p.detach().flatten() for p in net.parameters()])
given = theta, 0.1 * torch.randn(len(theta)), torch.randn(5, 3, 9, 8), torch.rand(5, 4).softmax(1)
results = []
for dtype in (torch.float32, torch.float64):
    loss = models.ConvNetLoss(net, given[2].shape, dtype)
    along, curved = loss.along(*(t.to(dtype) for t in given), 5, curvature=True)
    results.append([*along, curved.clone(), loss.gradient(*(t.to(dtype) for t in (theta, *given[2:])), 5)])
for ours, truth in zip(*results):
    assert (ours.double() - truth).norm() <= 1e-5 * truth.norm()

print("all")
"""


def of_this_machine() -> list[str]:
    variants = _ext.build_info()["simd"].split(";")
    return variants[: variants.index(_ext.build_info()["simd_active"]) + 1]


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Path:
    """A folder with a file a set, of what it told."""

    def make(folder):
        subprocess.run([sys.executable, "-c", FORKS, ANSWERS, str(folder), *of_this_machine()], check=True)

    return once(tmp_path_factory, "instruction-sets", make)


@pytest.mark.skipif(not _ext.available(), reason="fastdd._C is not built")
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "avx512bf16"])
def test_every_instruction_set_gives_the_same_answers(request, name):
    if name not in of_this_machine():
        pytest.skip(f"this machine or build has no {name}")
    found = (request.getfixturevalue("told") / name).read_text()
    assert found.split()[-1:] == ["all"], found
