"""Run with TRITON_INTERPRET=1: the Triton kernels on CPU tensors against the reference in float64."""

import torch

from fastdd.kernels import cf_match as kernels
from fastdd.ops.cf_match import cf_match
from fastdd.reference import cf_match as reference


def main() -> None:
    torch.manual_seed(0)
    # Segments of a class with others between them, one empty, one without weight, one of several tiles of rows.
    offsets, classes = torch.tensor([0, 5, 5, 8, 90, 91]), torch.tensor([1, 0, 0, 1, 0])
    weights = torch.rand(91)
    weights[5:8] = 0
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        # Phases of up to ten are off by as many units in the last place of float32 in both.
        tolerance = {"rtol": 0, "atol": 1e-13 if wide == torch.float64 else 3e-5}
        for sets, frequencies, columns in ((2, 70, 35), (1, 3, 1)):
            x = torch.randn(91, columns).to(dtype)
            t = torch.randn(sets, frequencies, columns, dtype=wide)
            g = torch.randn(5, frequencies, 2, dtype=wide)
            of = offsets, weights if sets == 2 else None, classes
            exact = x.double(), t.double(), *of
            got = kernels.cf_means(x, t, *of)
            torch.testing.assert_close(got, reference.cf_means(*exact), check_dtype=False, **tolerance)
            got = kernels.cf_pull(g, x, t, *of)
            torch.testing.assert_close(got, reference.cf_pull(g.double(), *exact), check_dtype=False, **tolerance)
    # More frequencies than a pull takes at a time; phases of many turns, and those that have none left.
    x, t = torch.randn(4, 2, dtype=torch.float64), 30 * torch.randn(1, 1030, 2, dtype=torch.float64)
    g, of = torch.randn(1, 1030, 2, dtype=torch.float64), (torch.tensor([0, 4]), None, torch.tensor([0]))
    torch.testing.assert_close(kernels.cf_means(x, t, *of), reference.cf_means(x, t, *of), rtol=0, atol=1e-11)
    torch.testing.assert_close(kernels.cf_pull(g, x, t, *of), reference.cf_pull(g, x, t, *of), rtol=0, atol=1e-9)
    far = kernels.cf_means(torch.tensor([[1e30]]), torch.ones(1, 1, 1), torch.tensor([0, 1]), None, torch.tensor([0]))
    assert far.tolist() == [[[1, 0]]]
    empty = kernels.cf_means(x[:0], t, torch.tensor([0, 0]), None, torch.tensor([0]))
    assert torch.equal(empty, torch.zeros_like(empty))
    real, synthetic = torch.randn(5, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    t, of = torch.randn(1, 4, 3, dtype=torch.float64), (torch.tensor([0, 3, 5]), None, torch.tensor([0, 0]))

    def match(r, s):
        return cf_match(r, s, t, *of, 1, backend="triton")

    assert torch.autograd.gradcheck(match, (real.requires_grad_(), synthetic.requires_grad_()), fast_mode=True)
    print("checked")


if __name__ == "__main__":
    main()
