"""Run with TRITON_INTERPRET=1: the Triton kernels on CPU tensors against the reference in float64."""

import torch

from fastdd.kernels import gradient_match as kernels
from fastdd.ops.gradient_match import gradient_match
from fastdd.reference import gradient_match as reference


def main() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        tolerance = {"rtol": 1e-13 if wide == torch.float64 else 1e-5, "atol": 1e-13 if wide == torch.float64 else 1e-5}
        # Short rows, several to a program; in one of the types, rows of one block, rows of two, and none.
        shapes = [(17, 27)] + [(1, 1152), (1, 2050), (0, 5), (3, 0)] * (dtype == torch.float32)
        for rows, columns in shapes:
            # Class 0's segments have others between them; class 2 has none; two are absent.
            classes = torch.tensor([1, 0, -1, 1, 0, -1])
            a = torch.randn(6, rows, columns).to(dtype)
            b = torch.randn(3, rows, columns, dtype=wide)
            a[classes < 0], b[2] = torch.nan, torch.nan
            p, q = torch.randn(2, 6, rows, dtype=wide)
            exact = a.double(), b.double(), classes
            for got, right in (
                (kernels.gradient_match_products(a, b, classes), reference.gradient_match_products(*exact)),
                (
                    kernels.gradient_match_combine(p, q, a, b, classes),
                    reference.gradient_match_combine(p.double(), q.double(), *exact),
                ),
                (kernels.gradient_match_distances(a, b, classes), reference.gradient_match_distances(*exact)),
                (kernels.gradient_match_pull(p, a, b, classes), reference.gradient_match_pull(p.double(), *exact)),
                (kernels.gradient_match_absolutes(a, b, classes), reference.gradient_match_absolutes(*exact)),
                (kernels.gradient_match_signs(p, a, b, classes), reference.gradient_match_signs(p.double(), *exact)),
            ):
                torch.testing.assert_close(
                    got, right if isinstance(right, torch.Tensor) else tuple(right), check_dtype=False, **tolerance
                )
    # No segments at all, and more of them than one block of classes holds.
    none = torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, 2, 3), torch.ones(3, 2, 3), classes[:0]
    assert torch.equal(kernels.gradient_match_combine(*none), torch.zeros(3, 2, 3))
    classes = torch.arange(130) % 2
    a, b = torch.randn(130, 1, 5), torch.randn(2, 1, 5)
    torch.testing.assert_close(
        kernels.gradient_match_products(a, b, classes), reference.gradient_match_products(a, b, classes)
    )
    real, synthetic = torch.randn(2, 1, 2, dtype=torch.float64), torch.randn(1, 1, 2, dtype=torch.float64)
    leaves = real.requires_grad_(), synthetic.requires_grad_()
    for metric in ("ours", "mse", "l1"):

        def match(r, s, metric=metric):
            return gradient_match([r], [s], torch.tensor([0, 0]), metric=metric, backend="triton")

        assert torch.autograd.gradcheck(match, leaves)
        assert torch.autograd.gradgradcheck(match, leaves, fast_mode=True)
    print("checked")


if __name__ == "__main__":
    main()
