"""Run with TRITON_INTERPRET=1: the kernel of segment_order against PyTorch's stable sort."""

import torch

from fastdd.core import rng
from fastdd.ops.segment_order import segment_order
from fastdd.reference import segment_order as reference


def main() -> None:
    for n, segments in ((0, 0), (0, 3), (1, 1), (5, 70), (300, 1), (300, 7), (1000, 40)):
        segment = rng.bits(n, n).remainder(max(segments, 1))
        for got, exact in zip(
            segment_order(segment, segments, backend="triton"), reference.segment_order(segment, segments), strict=True
        ):
            assert got.dtype == exact.dtype
            assert torch.equal(got, exact)
    print("checked")


if __name__ == "__main__":
    main()
