"""Run with TRITON_INTERPRET=1: the Triton kernels on CPU tensors against the reference in float64."""

import functools

import torch

from fastdd.kernels import norm_act_pool as kernels
from fastdd.kernels.config import table
from fastdd.ops.norm_act_pool import norm_act_pool
from fastdd.reference import norm_act_pool as reference

# Of every size of tile, odd and even; several blocks of channels, and a last one that is not full.
SHAPES = ((2, 5, 7, 17), (1, 2, 2, 1), (1, 12, 15, 3), (1, 17, 16, 3), (1, 33, 32, 3))


def case(n, height, width, channels, dtype):
    """Pixels on a grid, so that many are equal; none of them close to where ReLU switches."""
    x = torch.randint(-8, 9, (n, height, width, channels)) / 4 + 1
    weight, bias = torch.randn(channels), torch.randn(channels) / 2
    variance, mean = torch.var_mean(x.double(), (1, 2), correction=0, keepdim=True)
    assert ((x - mean) / (variance + 1e-5).sqrt() * weight + bias).abs().min() > 1e-5
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return x.to(dtype), weight.to(wide), bias.to(wide)


def check(got, exact, dtype) -> None:
    for ours, truth in zip(got, exact, strict=True):
        # bfloat16 is cut off, not rounded, in the interpreter.
        bound = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2**-7}[ours.dtype]
        assert ours.shape == truth.shape
        assert (ours.double() - truth).abs().max() <= bound * truth.abs().max().clamp(min=1), (dtype, ours.shape)


def check_three_orders(shape, pool, dtype) -> None:
    x, weight, bias = case(*shape, dtype)
    inputs = [t.double() for t in (x, weight, bias)]
    y, stats = kernels.norm_act_pool(x, weight, bias, 1e-5, pool)
    exact = reference.forward(*inputs, 1e-5, pool)
    check((y, stats), exact, dtype)
    g, u = torch.randn(y.shape).to(dtype), torch.randn(x.shape).to(dtype)
    first = kernels.norm_act_pool_backward(g, x, weight, bias, stats, pool)
    check(first, reference.backward(g.double(), *inputs, exact[1], pool), dtype)
    vw, vb = torch.randn_like(weight), torch.randn_like(bias)
    second = kernels.norm_act_pool_double_backward(u, vw, vb, g, x, weight, bias, stats, pool)
    upstream = [t.double() for t in (u, vw, vb, g)]
    check(second, reference.double_backward(*upstream, *inputs, exact[1], pool), dtype)
    if pool == "avg":  # what is left out is the same for all
        dx = kernels.norm_act_pool_slope(g, x, weight, bias, stats, pool)
        assert torch.equal(dx, first[0])
        alone = kernels.norm_act_pool_slope_backward(u, g, x, weight, bias, stats, pool)
        check(alone, reference.slope_backward(u.double(), g.double(), *inputs, exact[1], pool), dtype)


def main() -> None:
    torch.manual_seed(0)
    # Fills what torch.empty returns with NaN, so that an output left unwritten shows.
    torch.use_deterministic_algorithms(True)
    rows = set()
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for pool in reference.POOLS:
            for shape in SHAPES if dtype == torch.float32 else SHAPES[:3]:
                check_three_orders(shape, pool, dtype)
                empty = torch.empty(shape, dtype=dtype)
                rows |= {kernels.row(kernel, empty, pool) for kernel in ("forward", "gradient", "second")}
    assert rows | {"norm_act_pool_sums"} == {row for row in table("sm_90") if row.startswith("norm_act_pool")}
    check_three_orders((1, 1, 5, 2), "none", torch.float64)
    check_three_orders((1, 4, 1, 2), "none", torch.float64)

    for n, channels in ((0, 3), (2, 0)):
        x, weight = torch.zeros(n, 2, 2, channels), torch.zeros(channels)
        y, stats = kernels.norm_act_pool(x, weight, weight, 1e-5, "avg")
        _, dw, db = kernels.norm_act_pool_backward(y, x, weight, weight, stats, "avg")
        assert y.shape == (n, 1, 1, channels)
        assert torch.equal(dw, weight)
        assert torch.equal(db, weight)

    # A large mean, and strides. Smaller images are summed at once: pixel by pixel here, as a tree on a GPU.
    x = 1000 + torch.randn(1, 5, 33, 32)
    ones = torch.ones(1, 2).expand(5, 2)[:, 1]
    exact = reference.norm_act_pool(x.double(), ones, ones)
    error = norm_act_pool(x, ones, ones, backend="triton").double() - exact
    assert error.norm() <= 2 * (reference.norm_act_pool(x, ones, ones).double() - exact).norm()

    for pool in reference.POOLS:
        x = torch.full((1, 2, 2, 3), torch.nan)
        assert norm_act_pool(x, torch.ones(2), torch.ones(2), pool=pool, backend="triton").isnan().all()
        inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((1, 2, 2, 3), (2,), (2,))]
        function = functools.partial(norm_act_pool, pool=pool, backend="triton")
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    print("checked")


if __name__ == "__main__":
    main()
