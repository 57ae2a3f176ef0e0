"""Run with TRITON_INTERPRET=1: the Triton kernels on CPU tensors against plain convolutions in float64."""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.kernels import conv3x3 as kernels
from fastdd.kernels.config import table
from fastdd.ops import ConvBlock, conv3x3
from fastdd.ops._dispatch import interpreted
from fastdd.reference import norm_act_pool

# n, inputs, outputs, height, width: one image, odd sides, channels that fill no block, more rows than a tile.
SHAPES = ((1, 16, 32, 5, 7), (3, 48, 16, 1, 2), (1, 80, 16, 5, 13))
NAMES = ("y", "dx", "dw", "db", "to g", "to x", "to w")


def plain(x: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, filters, bias, padding=1)


def ours(x: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    return conv3x3(x, filters, bias, backend="triton")


def case(n: int, inputs: int, outputs: int, height: int, width: int) -> list[Tensor]:
    filters = torch.randn(outputs, inputs, 3, 3) / (9 * inputs) ** 0.5
    return [torch.randn(n, inputs, height, width), filters, torch.randn(outputs)]


def derivatives(function, tensors: list[Tensor], g: Tensor, v: list[Tensor]) -> list[Tensor]:
    """Output, first derivatives of <g, output>, second ones of <v, those>."""
    inputs = [t.to(g.dtype).requires_grad_() for t in tensors]
    y = function(*inputs)
    g = g.clone().requires_grad_()
    first = torch.autograd.grad(y, inputs, g, create_graph=True)
    second = torch.autograd.grad(first, [g, *inputs[:2]], [t.to(g.dtype) for t in v])
    return [t.detach() for t in (y, *first, *second)]


def check_three_orders(shape: tuple[int, ...]) -> None:
    tensors = case(*shape)
    g = torch.randn(shape[0], shape[2], *shape[3:])
    v = [torch.randn_like(t) for t in tensors]
    exact = derivatives(plain, tensors, g.double(), v)
    got = derivatives(ours, tensors, g, v)
    theirs = derivatives(plain, tensors, g, v)
    for name, mine, other, truth in zip(NAMES, got, theirs, exact, strict=True):
        assert mine.shape == truth.shape
        error, allowed = ((t.double() - truth).norm() for t in (mine, other))
        # Two roundings, where plain torch sums few products.
        assert error <= 2 * allowed + 1.2e-7 * truth.norm(), (shape, name, error / truth.norm(), allowed / truth.norm())


def check_two_runs(shape: tuple[int, ...]) -> None:
    x, filters, _ = case(*shape)
    g = torch.randn(shape[0], shape[2], *shape[3:]).permute(0, 2, 3, 1)
    for run in (lambda: ours(x, filters, None), lambda: kernels.conv3x3_weight(x.permute(0, 2, 3, 1), g)):
        assert torch.equal(run(), run())


def check_parts() -> None:
    """Exact and rounded to nearest: ties, carries into the exponent, both signs, small numbers, of which the last part
    is above the smallest bfloat16 yet; what is not finite."""
    x = torch.cat([torch.randn(3000), torch.randn(1000) * 1e-28])
    edges = [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, 2 - 2**-23, -(2 - 2**-23), 3.3e38, 1 + 2**-16, 1 - 2**-24]
    x = torch.cat([x, torch.tensor(edges)])
    parts = kernels._split(x).double()
    assert torch.equal(parts.sum(0), x.double())
    # torch rounds to the nearest, the even one of two.
    assert torch.equal(parts[0], x.bfloat16().double())
    assert torch.equal(parts[1], (x - x.bfloat16().float()).bfloat16().double())
    strange = kernels._split(torch.tensor([torch.inf, -torch.inf, torch.nan])).float()
    assert torch.equal(strange[0, :2], torch.tensor([torch.inf, -torch.inf]))
    assert strange[0, 2].isnan()
    assert not strange[1:].any()


def check_blocks() -> None:
    """Several images in a program, one, odd edges; and what no program holds."""
    for shape in ((3, 16, 32, 8, 7), (1, 32, 16, 15, 16), (9, 16, 16, 3, 4), (1, 16, 16, 17, 16)):
        x, filters, shift = case(*shape)
        weight, bias = torch.randn(shape[2]), torch.randn(shape[2])
        for pool in norm_act_pool.POOLS if shape[3] < 10 else ("avg",):
            got = ConvBlock(filters, weight, bias, pool=pool, backend="triton")(x)
            truth, single = (
                norm_act_pool.norm_act_pool(plain(*(t.to(to) for t in (x, filters, shift))), *affine, 1e-5, pool)
                for to, affine in ((torch.float64, (weight.double(), bias.double())), (torch.float32, (weight, bias)))
            )
            assert got.shape == truth.shape
            error, allowed = ((t.double() - truth).norm() for t in (got, single))
            assert error <= 2 * allowed, (shape, pool, error / allowed)
    x[0, 3, 4, 5] = torch.nan
    assert ConvBlock(filters, weight, bias, backend="triton")(x).isnan().all()


def check_widths() -> None:
    """The rule at the ConvNet's width, of which a sum has 1,152 products."""
    tensors = case(1, 128, 128, 6, 6)
    truth = plain(*(t.double() for t in tensors))
    error, allowed = ((f(*tensors).double() - truth).norm() / truth.norm() for f in (ours, plain))
    print(f"error at the ConvNet's width: {error:.2e}, plain torch {allowed:.2e}", file=sys.stderr)
    assert error <= 2 * allowed, (error, allowed)
    assert error < 2e-7, error


def main() -> None:
    torch.manual_seed(0)
    # Fills what torch.empty returns with NaN, so that an output left unwritten shows.
    torch.use_deterministic_algorithms(True)
    check_parts()
    # Of few pixels, so that the weight gradient of small images is split.
    kernels._MIN_PIXELS = 30
    for shape in SHAPES:
        check_three_orders(shape)
    check_two_runs((1, 16, 16, 5, 13))
    kernels._PROGRAMS = 1  # as of many images: large tiles
    check_two_runs((1, 16, 80, 9, 15))
    check_widths()
    check_blocks()
    # Other channels and dtypes are PyTorch's.
    x, filters = torch.randn(2, 4, 4, 3), torch.randn(5, 3, 3, 3)
    assert interpreted("conv3x3")(x, filters, None, False).shape == (2, 4, 4, 5)
    assert interpreted("conv3x3_weight")(x, torch.randn(2, 4, 4, 5)).shape == (5, 3, 3, 3)
    assert interpreted("conv3x3")(torch.zeros(0, 4, 4, 16), torch.zeros(16, 16, 3, 3), None, True).numel() == 0
    wide = [t.double() for t in case(1, 16, 16, 3, 3)]
    assert torch.equal(ours(*wide), plain(*wide))
    assert {"conv3x3_tiles", "conv3x3_tiles_small"} <= set(table("sm_90"))
    print("checked")


if __name__ == "__main__":
    main()
