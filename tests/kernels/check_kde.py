"""Run with TRITON_INTERPRET=1: the Triton kernel on CPU tensors against the reference in float64."""

import torch

from fastdd.kernels import kde as kernels
from fastdd.ops.kde import PRECISIONS, kde
from fastdd.reference.kde import kde as reference


def agree(x, queries, **options) -> None:
    exact = reference(
        x.double(),
        None if queries is None else queries.double(),
        options.get("weights"),
        options.get("offsets"),
        options["bandwidth"],
        options.get("leave_one_out", False),
        "ieee",
    )
    for precision in PRECISIONS if x.dtype == torch.float32 and queries is None else PRECISIONS[:1]:
        got = kde(x, queries, precision=precision, backend="triton", **options)
        assert got.dtype == x.dtype
        # Rows rounded to tf32 are up to 2^-11 of their length away; the interpreter multiplies in full.
        tolerance = 1e-12 if x.dtype == torch.float64 else 1e-2 if precision == "tf32" else 1e-5
        torch.testing.assert_close(got.double(), exact, rtol=0, atol=tolerance)


def main() -> None:
    torch.manual_seed(0)
    # Few rows to a split, so that a few hundred have several, each of several tiles and a last one that is not full.
    kernels._ROWS_PER_SPLIT = 100
    for dtype in (torch.float32, torch.float64):
        # Columns that are no power of two, and more than fit the narrow kernel; with 230 rows, three splits.
        for n, m, d in ((1, 1, 1), (150, 9, 20), (70, 3, 140), (230, 5, 3)):
            x = (torch.randn(n, d) / d**0.5 + 3).to(dtype)
            weights = torch.rand(n) * (torch.rand(n) > 0.3)
            weights[0] = 1e6
            agree(x, x[:m] + 0.1, bandwidth=0.5)
            agree(x, x[:m] + 0.1, bandwidth=0.5, weights=weights)
            agree(x, None, bandwidth=0.5, weights=weights, leave_one_out=True)
        # Empty segments, one of a single row, and one that ends inside a tile.
        x, offsets = torch.randn(140, 5, dtype=dtype), torch.tensor([0, 0, 30, 31, 140, 140])
        weights = torch.rand(140)
        weights[3] = 1e6
        agree(x, None, bandwidth=0.7, offsets=offsets)
        agree(x, None, bandwidth=0.7, offsets=offsets, weights=weights, leave_one_out=True)
        # Strides of a transpose.
        agree(x.t().contiguous().t(), x.t().contiguous().t()[:9], bandwidth=0.7)
        # So narrow that all but the largest terms underflow: relative to the largest, they do not.
        agree(torch.arange(20.0, dtype=dtype)[:, None], None, bandwidth=0.05, leave_one_out=True)
        empty = torch.zeros(0, 3, dtype=dtype)
        assert kde(empty, bandwidth=1.0, backend="triton").shape == (0,)
        assert kde(empty, empty.new_zeros(2, 3), bandwidth=1.0, backend="triton").tolist() == [-torch.inf] * 2
    # Rounded first, norms of what is multiplied: exact for the rounded rows, however tight and far apart the groups.
    x = torch.randn(90, 6) * 1e-3 + torch.tensor([-1.0, 1.0]).repeat(45)[:, None]
    x -= x.mean(0)
    rounded = kernels._round_to_tf32(x)
    assert 1e-5 < (rounded - x).abs().max() < 2.0**-11
    exact = reference(rounded.double(), None, None, None, 1e-2, True, "ieee")
    got = kde(x, bandwidth=1e-2, leave_one_out=True, precision="tf32", backend="triton")
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=2e-2)
    print("checked")


if __name__ == "__main__":
    main()
