"""Run with TRITON_INTERPRET=1: the Triton kernels on CPU tensors against the reference in float64."""

import functools

import torch

from fastdd.kernels import group_grad as kernels
from fastdd.ops.group_grad import group_grad
from fastdd.ops.grouped import grouped_conv_weight, grouped_matmul, grouped_outer
from fastdd.reference import group_grad as reference

TOLERANCE = {torch.float64: 5e-15, torch.float32: 5e-7, torch.bfloat16: 5e-7, torch.float16: 5e-7}


def close(got: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert got.shape == exact.shape
    if exact.numel():
        error = ((got - exact).abs().max() / exact.abs().max().clamp(min=1)).item()
        assert error <= TOLERANCE[dtype], (dtype, error)


def linear(dtype: torch.dtype, ends: list[int], rows: int, p: int, q: int, weighted: bool) -> None:
    n = ends[-1]
    a, b = torch.randn(n * rows, p).to(dtype), torch.randn(n * rows, q).to(dtype)
    g = torch.randn(len(ends) - 1, q, p, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    # Powers of two (and zero): the GPU rounds w b to b's type, the interpreter does not.
    weights = torch.randint(0, 4, (n,)).float().square().clamp(max=4) if weighted else None
    offsets = torch.tensor(ends)
    got = grouped_outer(a, b, weights, offsets, rows_per_sample=rows, backend="triton")
    close(got, reference.grouped_outer(a.double(), b.double(), weights, offsets, rows), dtype)
    for x, matrix in ((b, g), (a, g.mT)):
        got = grouped_matmul(x, matrix, weights, offsets, rows_per_sample=rows, backend="triton")
        close(got, reference.grouped_matmul(x.double(), matrix.double(), weights, offsets, rows), dtype)


def convolution(dtype: torch.dtype, ends: list[int], channels: int, outputs: int, size: int, **geometry) -> None:
    groups = geometry.get("groups", 1)
    layer = torch.nn.Conv2d(channels, outputs, **geometry)
    x = torch.randn(ends[-1], channels, size, size + 1)
    b = torch.randn(ends[-1], *layer(torch.zeros(1, *x.shape[1:])).shape[1:]).to(dtype)
    x, offsets = x.to(dtype), torch.tensor(ends)
    got = grouped_conv_weight(x, b, offsets, backend="triton", **geometry)
    numbers = [list(v) for v in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)]
    close(got, reference.grouped_conv_weight(x.double(), b.double(), offsets, *numbers, groups), dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    g = torch.randn(len(ends) - 1, *layer.weight.shape, dtype=wide)
    for y, size, adjoint in ((x, b.shape[2:], False), (b, x.shape[2:], True)):
        geometry = [*size], *numbers[1:], groups, adjoint
        exact = reference.grouped_conv(y.double(), g.double(), offsets, *geometry)
        got, plain = (of.grouped_conv(y, g, offsets, *geometry) for of in (kernels, reference))
        rounding = 4 * torch.finfo(wide).eps * exact.abs().max()
        assert got.dtype == wide
        assert (got - exact).abs().max() <= 2 * torch.maximum((plain - exact).abs().max(), rounding)


def derivatives() -> None:
    """The ops' own derivatives and a network's, with the launchers in place of the CPU's kernels."""
    library = torch.library.Library("fastdd", "IMPL")
    for name in ("grouped_outer", "grouped_matmul", "grouped_conv_weight", "grouped_conv"):
        library.impl(name, getattr(kernels, name), "CPU")
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(12, 3))
    images = torch.randn(5, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    labels, offsets = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 2, 2, 5])
    weights = torch.rand(5, dtype=torch.float64, requires_grad=True)
    results = []
    for method in ("slices", "fused"):
        found = group_grad(net.double(), images, labels, offsets, weights, create_graph=True, method=method)
        value = sum(g.square().sum() ** 2 + g.sum() for g in found.values())
        results.append([*found.values(), *torch.autograd.grad(value, [images, weights])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
    b = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    function = functools.partial(torch.ops.fastdd.grouped_matmul, weights=None, offsets=torch.tensor([0, 1, 2]), rows=2)
    g = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (b, g), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (b, g), fast_mode=True)


def main() -> None:
    torch.manual_seed(0)
    # Items of few rows, so that segments of a few hundred have several.
    kernels._MIN_ITEM_ROWS = 100
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        linear(dtype, [0, 3, 3, 300], 1, 70, 5, True)
        linear(dtype, [0, 0, 50, 51, 51, 120], 3, 9, 130, False)
        convolution(dtype, [0, 2, 2, 8], 3, 5, 6, kernel_size=3, padding=1)
        if dtype in (
            torch.float32,
            torch.float64,
        ):  # the narrow types differ in loads alone
            linear(dtype, [0, 0], 2, 3, 4, True)
            linear(dtype, [0, 1], 1, 1, 1, False)
    linear(torch.float32, [0], 1, 2, 2, False)
    # More segments than one step of the search.
    linear(torch.float32, [*range(131)], 1, 2, 3, False)
    convolution(torch.float32, [0, 1, 3], 66, 4, 5, kernel_size=(2, 1), stride=(1, 2), padding=(1, 0), dilation=(2, 1))
    convolution(torch.float32, [0, 3], 130, 4, 4, kernel_size=1, groups=2)
    convolution(torch.float32, [0, 3], 4, 6, 7, kernel_size=3, stride=2, groups=2, dilation=(1, 2))
    derivatives()
    print("checked")


if __name__ == "__main__":
    main()
