"""Run with TRITON_INTERPRET=1: the Triton kernels on CPU tensors against the reference in float64."""

import torch

from fastdd.kernels import segment_mean as kernels
from fastdd.ops.segment_mean import segment_mean, segment_spread
from fastdd.reference import segment_mean as reference


def main() -> None:
    torch.manual_seed(0)
    # Few rows to a split, so that 170 have several, each of several tiles.
    kernels._ROWS_PER_SPLIT = 64
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        tight = dtype == torch.float64
        shapes = [(170, 130, [0, 0, 10, 130, 130, 170]), (9, 4, [0, 3, 3, 9]), (0, 3, [0, 0]), (1, 1, [0, 1])]
        # The narrow types differ in what is loaded, and in nothing after it.
        for n, columns, ends in shapes if dtype in (torch.float32, torch.float64) else shapes[:1]:
            x, offsets = torch.randn(n, columns).to(dtype), torch.tensor(ends)
            for weights in (None, torch.rand(n), torch.zeros(n)):
                got = segment_mean(x, offsets, weights, backend="triton")
                exact = reference.segment_mean(x.double(), offsets, weights)
                assert got.dtype == (torch.float64 if tight else torch.float32)
                torch.testing.assert_close(got.double(), exact, rtol=0, atol=1e-15 if tight else 5e-7)
                g = torch.randn(len(ends) - 1, columns, dtype=got.dtype)
                got = segment_spread(g, offsets, weights, n, backend="triton")
                exact = reference.segment_spread(g.double(), offsets, weights, n)
                torch.testing.assert_close(got.double(), exact, rtol=0, atol=1e-15 if tight else 5e-7)
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    offsets, weights = torch.tensor([0, 3, 3, 7]), torch.rand(7)

    def mean(t):
        return segment_mean(t, offsets, weights, backend="triton")

    assert torch.autograd.gradcheck(mean, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(mean, x, fast_mode=True)
    print("checked")


if __name__ == "__main__":
    main()
