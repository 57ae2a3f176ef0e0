"""Run with TRITON_INTERPRET=1: the Triton kernels on CPU tensors against the reference in float64."""

import torch

from fastdd.kernels import segment_mean as kernels
from fastdd.ops.embedding_match import embedding_match
from fastdd.reference import embedding_match as reference


def main() -> None:
    torch.manual_seed(0)
    # Few rows to a split, so that 150 have several.
    kernels._ROWS_PER_SPLIT = 64
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        atol = 1e-13 if wide == torch.float64 else 1e-5
        # 150 rows: split over programs. 1,100 columns: two blocks of differences.
        cases = [(9, 4, [0, 3, 3, 9], [1, 0, 0], 2), (0, 3, [0, 0], [1], 1)]
        if dtype == torch.float32:
            cases += [(150, 5, [0, 125, 150], [0, 1], 35), (20, 1100, [0, 9, 20], [1, 0], 1)]
            cases.append((40, 5, [0, *range(2, 42, 2)], [0, 1] * 10, 3))
        for n, columns, ends, classes, ipc in cases:
            real, offsets, classes = torch.randn(n, columns).to(dtype), torch.tensor(ends), torch.tensor(classes)
            synthetic = torch.randn(2 * ipc, columns, dtype=wide)
            for w in (None, torch.rand(n), torch.zeros(n)) if n == 9 else (torch.rand(n),):
                got, exact = (synthetic.to(t, copy=True).requires_grad_() for t in (wide, torch.float64))
                distances = embedding_match(real, got, offsets, w, classes, 2, backend="triton")
                expected, _, _ = reference.embedding_match(real.double(), exact, offsets, w, classes, 2)
                torch.testing.assert_close(distances.double(), expected, rtol=1e-6, atol=atol)
                g = torch.rand(len(classes), dtype=wide)
                distances.backward(g)
                expected.backward(g.double())
                torch.testing.assert_close(got.grad.double(), exact.grad, rtol=1e-6, atol=atol)
    real, synthetic = (torch.randn(n, 1, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    rest = torch.tensor([0, 2, 2, 3]), torch.rand(3), torch.tensor([1, 0, 0]), 2

    def match(r, s):
        return embedding_match(r, s, *rest, backend="triton")

    assert torch.autograd.gradcheck(match, (real, synthetic), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda s: match(real.detach(), s), synthetic, fast_mode=True)
    print("checked")


if __name__ == "__main__":
    main()
