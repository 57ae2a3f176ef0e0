"""Run with TRITON_INTERPRET=1: the Triton kernels on CPU tensors against the reference in float64."""

import functools

import torch

from fastdd.kernels import gradient_match as kernels
from fastdd.kernels import gradient_match_layers as layers
from fastdd.ops.gradient_match import METRICS, gradient_match
from fastdd.reference import gradient_match as reference


def close(ours: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor, metric: str) -> None:
    """At most twice plain PyTorch's error, or the rounding of the largest value where that is more."""
    rounding = 4 * torch.finfo(ours.dtype).eps * exact.abs().max()
    error, allowed = (ours - exact).abs().max(), 2 * torch.maximum((theirs - exact).abs().max(), rounding)
    assert error <= allowed, (metric, ours.dtype, error, allowed)


def all_layers() -> None:
    """The kernels of all layers at once, and the derivatives of gradient_match by them."""
    rows, columns = [4, 1, 2], [7, 1152, 5]
    size = sum(r * c for r, c in zip(rows, columns, strict=True))
    classes, present = torch.tensor([1, 0, 2, 1, 0, 1]), torch.tensor([True, True, False, True, False, True])
    for dtype, given in ((torch.float32, present), (torch.float64, None), (torch.bfloat16, None)):
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        a, b, g = torch.randn(6, size).to(dtype), torch.randn(4, size, dtype=wide), torch.randn(6, dtype=wide)
        a[0, :7] = b[1, :7] = 0  # a row of zeros, on either side
        if given is not None:
            a[~given], b[3] = torch.nan, torch.nan
        # What a metric does is done after the loads, which alone know bfloat16.
        for metric in METRICS if dtype != torch.bfloat16 else METRICS[:1]:
            geometry = rows, columns, metric
            exact = reference.gradient_match_layers(a.double(), b.double(), classes, given, *geometry)
            theirs = reference.gradient_match_layers(a, b, classes, given, *geometry)
            ours = layers.gradient_match_layers(a, b, classes, given, *geometry)
            close(ours[0], theirs[0], exact[0], metric)
            pull = g.double(), a.double(), b.double(), classes, given, *exact[1:], *geometry
            found = layers.gradient_match_layers_pull(g, a, b, classes, given, *ours[1:], *geometry)
            plain = reference.gradient_match_layers_pull(g, a, b, classes, given, *theirs[1:], *geometry)
            close(found, plain, reference.gradient_match_layers_pull(*pull), metric)
    real = [torch.randn(3, 2, 3, dtype=torch.float64), torch.randn(3, 1, 2, dtype=torch.float64)]
    synthetic = [torch.randn(2, 2, 3, dtype=torch.float64), torch.randn(2, 1, 2, dtype=torch.float64)]
    owners, leaves = torch.tensor([0, 1, 0]), [t.requires_grad_() for t in (*real, *synthetic)]
    for metric in METRICS:

        def match(*tensors, metric=metric, backend="triton"):
            mark = torch.tensor([True, True, False])
            return gradient_match(tensors[:2], tensors[2:], owners, metric=metric, present=mark, backend=backend)

        for got, right in zip(
            torch.autograd.grad(match(*leaves).sum(), leaves[2:]),
            torch.autograd.grad(match(*leaves, backend="reference").sum(), leaves[2:]),
            strict=True,
        ):
            torch.testing.assert_close(got, right)
    assert torch.autograd.gradgradcheck(functools.partial(match, metric="ours"), leaves, fast_mode=True)


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

        assert torch.autograd.gradcheck(match, leaves, fast_mode=True)
        assert torch.autograd.gradgradcheck(match, leaves, fast_mode=True)
    all_layers()
    print("checked")


if __name__ == "__main__":
    main()
